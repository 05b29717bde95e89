"""A place for one operation to write in before its result is renamed to where it belongs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.store import locks
from corral.store.layout import Layout
from corral.store.locks import StoreLock

_LOCK = "lock"


@contextmanager
def scratch(layout: Layout, lock: StoreLock) -> Iterator[Path]:
    """A new directory in the store's file system, removed at the end; when its owner is killed, by the next sweep.

    The caller must not have the store's lock.
    """
    directory = layout.scratch / f"{os.getpid()}-{secrets.token_hex(6)}"
    with lock.shared():  # a sweep, which has it exclusively, sees the directory with its lock or not at all
        directory.mkdir()
        fd = locks.take(directory / _LOCK)
    assert fd is not None, "nobody else knows the name"
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(fd)


def abandoned(layout: Layout) -> list[Path]:
    """Directories whose owner is gone. The caller has the store's lock exclusively."""
    return [each for each in layout.scratch.iterdir() if not each.is_dir() or locks.free(each / _LOCK)]
