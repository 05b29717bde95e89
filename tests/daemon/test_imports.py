"""What a server loads before anybody asked for anything."""

from __future__ import annotations

import subprocess
import sys


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
