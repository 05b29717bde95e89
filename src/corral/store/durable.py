"""Writing so that it lasts: fsync of files and directories, files replaced as a whole, disk errors in clear words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.errors import DiskFull, StoreError

try:
    import fcntl
except ImportError:  # no server there, but the module still imports
    fcntl = None  # type: ignore[assignment]

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
_FULL = (errno.ENOSPC, errno.EDQUOT)


def sync_file(fd: int) -> None:
    """Returns when the file's bytes are on the disk."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fsync(fd)


def sync_directory(directory: Path) -> None:
    """Returns when names made, changed or removed in `directory` are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def write_new(file: Path, data: bytes, mode: int = 0o644) -> None:
    """Makes `file` anew with `data`, on the disk when this returns; not its name, which a rename comes after."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        sync_file(fd)
    finally:
        os.close(fd)


def replace(file: Path, data: bytes, scratch: Path, mode: int = 0o644) -> None:
    """Replaces `file` by `data` in one step, on the disk when this returns.

    `scratch` is a name in the same file system that only the caller uses.
    """
    write_new(scratch, data, mode)
    scratch.replace(file)
    sync_directory(file.parent)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turns an OSError of the block into a StoreError, DiskFull when that is what it is. `doing` follows "cannot"."""
    try:
        yield
    except OSError as error:
        raise said(error, doing) from error


def said(error: OSError, doing: str) -> StoreError:
    """`error` as the StoreError to raise for it."""
    if error.errno in _FULL:
        return DiskFull(
            f"cannot {doing}: the disk is full", hint="free some space (`corral prune`, `corral df`) and try again"
        )
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(
        f"cannot {doing}: {error.strerror or error}{where}", hint="check the store's owner, mode and file system"
    )
