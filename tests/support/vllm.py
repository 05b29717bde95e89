"""A real vLLM on the processor, and a tiny model for it: both made once and found again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.config.paths import Paths, find_paths
from corral.engines.vllm_builds import build_in, installed
from corral.errors import EngineMissing

# Looked up when this is imported, before HOME is hidden from the tests.
_HERE = find_paths()
_NAMED = os.environ.get("CORRAL_TEST_VLLM")
_SCRIPT = Path(__file__).parents[2] / "tools" / "tiny_llama.py"

START = "20m"
"""How long a start may take: seconds on a machine of its own, minutes where many others work."""


def environment() -> Path:
    """The environment with vLLM: CORRAL_TEST_VLLM, or the one that `make vllm` installed. Skips where there is none."""
    found = Path(_NAMED) if _NAMED else installed(_HERE.cache_dir / "tests")
    try:
        if found is not None:
            return build_in(found).folder
    except EngineMissing:
        pass
    pytest.skip("there is no vLLM here: `make vllm` installs it")


def tiny_llama() -> Path:
    """The folder of the tiny model, made by tools/tiny_llama.py in vLLM's own environment."""
    name = f"tiny-llama-{hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()[:12]}"
    made = _HERE.cache_dir / "tests" / name
    if not (made / "whole").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        python = environment() / "bin" / "python"
        subprocess.run([str(python), str(_SCRIPT), str(made)], check=True, capture_output=True, timeout=900)
        (made / "whole").touch()
    return made


def remember_flags(paths: Paths) -> None:
    """Gives a test's server what its vLLM said of its flags to an earlier one: asking takes longer than starting."""
    kept = _HERE.cache_dir / "tests" / "vllm-flags"
    into = paths.cache_dir / "engines"
    into.mkdir(parents=True, exist_ok=True)
    for file in kept.glob("vllm-flags-*.json"):
        shutil.copy(file, into)


def keep_flags(paths: Paths) -> None:
    """Keeps for later tests what it said to this one's server."""
    kept = _HERE.cache_dir / "tests" / "vllm-flags"
    kept.mkdir(parents=True, exist_ok=True)
    for file in (paths.cache_dir / "engines").glob("vllm-flags-*.json"):
        shutil.copy(file, kept)


@contextmanager
def configured(paths: Paths) -> Iterator[str]:
    """A server's configuration with the tiny model for this vLLM, and the demo model beside it: one at a time."""
    found, model = environment(), tiny_llama()
    remember_flags(paths)
    yield f"""
        max_active: 1
        timeouts: {{start: {START}, queue: {START}, stop: 60s, drain: 10m}}
        executables: {{vllm: {found}}}
        models:
          - name: tiny
            source: {model}
            engine: vllm
            context: 1024
            max_num_seqs: 32
            sleep: 1
            args: [--enforce-eager]
          - {{name: demo, source: 'builtin:demo', executable: embedded}}
    """
    keep_flags(paths)
