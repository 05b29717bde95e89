"""What a server loads before anybody asked for anything."""

from __future__ import annotations

import subprocess
import sys


def test_a_server_loads_only_what_it_always_needs() -> None:
    """Packages that few installations ever use are loaded when they are, not when the server starts."""
    seldom = ("cryptography", "huggingface_hub", "httpx2", "xllamacpp", "numpy")
    program = f"import sys, corral.daemon; print([name for name in {seldom} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
