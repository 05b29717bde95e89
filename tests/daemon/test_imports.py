"""What a server loads before anybody asked for anything."""

from __future__ import annotations

import re
import subprocess
import sys

from corral.config.paths import Paths
from support.server import Server

MOST_MODULES = 690
"""Of a server that starts and ends, the interpreter's own included. Each costs about half a millisecond of every start:
more of them need a reason."""


def test_a_server_loads_only_what_it_always_needs() -> None:
    """What few installations ever use is loaded when they do, not when the server starts: packages, and Corral's own
    modules for stored models and registries."""
    packages = ("cryptography", "huggingface_hub", "httpx2", "xllamacpp", "numpy")
    own = (
        "registry.egress",
        "api_store",
        "models.downloads",
        "models.shelf",
        "models.workshop",
        "gateway.store_control",
    )
    seldom = (*packages, *(f"corral.{each}" for each in own))
    program = f"import sys, corral.serve, corral.daemon; print([name for name in {seldom} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_whole_life_loads_only_what_it_needs(paths: Paths) -> None:
    """Nor by what a server does once it is up: nothing of containers where none was made, no HTTP client."""
    with Server(paths, env={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        server.end()
        loaded = re.findall(r"^import time: .*\| +(\S+)$", server.said(), re.MULTILINE)
    assert "corral.daemon" in loaded
    own = r"corral\.(registry|environments|runners\.containers)\.(?!records$)"
    seldom = rf"{own}|http\.client|xllamacpp|cryptography"
    assert [name for name in loaded if re.match(seldom, name)] == []
    assert len(loaded) <= MOST_MODULES
