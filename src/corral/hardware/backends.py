"""The GPU backends of a llama.cpp build, by the libraries that lie beside its program. Nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_BACKEND: Final = re.compile(r"(?:lib)?ggml-(cuda|hip|vulkan|metal|sycl|musa|cann|opencl)\.(?:so|dylib|dll)")


def backends_in(folders: Iterable[Path]) -> tuple[str, ...]:
    """`"vulkan"`, `"cuda"` …; none for a build that is all one file, or has none."""
    found = set()
    for folder in folders:
        try:
            found |= {match[1] for path in folder.iterdir() if (match := _BACKEND.fullmatch(path.name))}
        except OSError:
            continue
    return tuple(sorted(found))
