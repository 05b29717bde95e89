"""Files under a directory that others change at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path


def files(directory: Path, without: Set[Path] = frozenset()) -> Iterator[Path]:
    """Everything under `directory` that is no directory, links not followed; what vanishes meanwhile is left out."""
    for where, directories, names in os.walk(directory):
        here = Path(where)
        # Links to directories are told among the directories.
        yield from (here / name for name in (*names, *(each for each in directories if (here / each).is_symlink())))
        directories[:] = [each for each in directories if here / each not in without]
