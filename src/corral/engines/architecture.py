"""Whether an engine build knows a model's architecture, and which versions do.

A build is not asked but looked at: llama.cpp keeps the architectures' names as NUL-terminated text in its library.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path

from corral.engines.architectures import FIRST_RELEASE, NEWEST, OLDEST
from corral.engines.executables import Build, kept
from corral.errors import UnknownArchitecture

_SURE = "nomic-bert"
"""Every build in question has it: where it is missing, the names are not where we look and nothing can be told."""


def knows(build: Build, architecture: str) -> bool | None:
    """Whether `build` has `architecture`; None when its files do not show. Blocks: up to 0.1 s the first time.

    Errs on the side of yes: linkers store a name that ends another one only once, so the text before it is not looked
    at, and an engine that does not know its model after all says so itself.
    """
    if any(_has(library, architecture) for library in build.libraries):
        return True
    return False if any(_has(library, _SURE) for library in build.libraries) else None


def check(build: Build, architecture: str, model: str, others: Callable[[], Sequence[Build]] = tuple) -> None:
    """Raises UnknownArchitecture, naming the versions and those of the `others` here that do know it.

    `others` is asked for only then: looking at further builds takes time.
    """
    if knows(build, architecture) is not False:
        return
    since = FIRST_RELEASE.get(architecture)
    able = [other for other in others() if knows(other, architecture)]
    hints = []
    if able:
        names = " or ".join("embedded" if each.kind == "embedded" else str(each.path) for each in able)
        hints.append(f"here it can run with `executable: {names}`")
    if since is None:
        hints.append(f"llama.cpp as of gguf {NEWEST} does not name it; a newer version may, or the file is not for it")
    else:
        older = " or older" if since == OLDEST else ""
        package = (
            "`pip install --upgrade xllamacpp` may bring it" if build.kind == "embedded" else "update that llama.cpp"
        )
        hints.append(f"llama.cpp has it since the release of gguf {since}{older}; {package}")
    raise UnknownArchitecture(
        f"{build} does not know the architecture {architecture!r} of {model}",
        hint="; ".join(hints),
        architecture=architecture,
        version=build.version,
        known_since=since,
        known_by=[str(each.path) for each in able],
    )


def _has(library: Path, name: str) -> bool:
    return kept(library, f"architecture:{name}", lambda path: _scan(path, name))


def _scan(path: Path, name: str) -> bool:
    if not name or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(name.encode() + b"\0") >= 0
