"""How many threads the engine computes a tiny model with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from corral.engines import flags
from corral.engines.executables import Build
from corral.models.formats.gguf import Header

TINY_BYTES: Final = 4 << 20
"""Weights up to here are little work. Threads meet after each of hundreds of steps, and spin until the last has come:
the demo model's life cost 0.3 to 1.8 s of the processor with two threads on a busy machine, and 0.17 s with one."""

_OR_ELSE: Final = ("--threads", "--mmproj", "--model-draft", "--lora", "--lora-scaled")


def arguments(header: Header, build: Build, args: Sequence[str]) -> tuple[str, ...]:
    """One thread for a model that is tiny, unless `args` say how many, or bring weights of their own."""
    if header.weights_bytes > TINY_BYTES or (build.kind != "embedded" and "--threads" not in build.flags):
        return ()
    return () if any(flags.has(args, name) for name in _OR_ELSE) else ("--threads", "1")
