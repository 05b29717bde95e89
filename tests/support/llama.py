"""Real llama.cpp engines for tests: where the built `llama-server` is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def llama_server() -> Path:
    """The real `llama-server`; the test is skipped where there is none.

    Tests that call this are marked `engines`. It is `CORRAL_TEST_LLAMA_SERVER`, which conftest sets to what
    `make engines` built, or else the one on PATH.
    """
    found = os.environ.get("CORRAL_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if found is None or not Path(found).exists():
        pytest.skip("no llama-server here: `make engines` builds one")
    return Path(found)
