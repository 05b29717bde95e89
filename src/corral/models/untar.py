"""Unpacking a tar layer into a directory: plain files only, nothing outside, everything bounded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from corral.artifact import safe_path
from corral.errors import ArchiveRefused, DiskFull
from corral.lazy_dataclass import dataclass
from corral.models.inflate import PIECE_BYTES, Inflated, damaged
from corral.store.durable import disk_errors, sync_file
from corral.store.tar import Reader
from corral.units import show_bytes

MAX_FILES: Final = 20_000
FILE_MODE: Final = 0o444


@dataclass(frozen=True, slots=True)
class Member:
    """One file that was unpacked; `path` is relative to the directory."""

    path: str
    size: int


def unpack(stream: Inflated, into: Path) -> list[Member]:
    """Writes the archive's files below `into`, each on the disk when this returns. `into` is private to the caller.

    Raises ManifestError for links, devices, absolute and climbing paths, a path that is already there, lying sizes,
    absurd counts; DiskFull. What was written until then stays, for the caller to remove.
    """
    members: list[Member] = []
    reader = Reader(stream)
    try:
        for entry in reader:
            if len(members) == MAX_FILES:
                raise damaged(f"it has more than {MAX_FILES:,} files")
            path = safe_path(entry.name)
            if entry.size > stream.left:
                raise damaged(f"{path!r} claims {entry.size:,} bytes, more than the archive can hold")
            _write(reader, into, path, entry.size)
            members.append(Member(path, entry.size))
    except ArchiveRefused as error:
        raise damaged(error.message.removeprefix("this archive is refused: ")) from error
    return members


def make_directories(into: Path, name: str) -> None:
    """Makes the directory `name` below `into`, and those above it. Raises ManifestError when a file is in the way."""
    at = into
    for part in name.split("/") if name else ():
        at = at / part
        try:
            at.mkdir(0o755)
        except FileExistsError:
            if at.is_symlink() or not at.is_dir():
                raise damaged(f"the path {name!r} goes through a file") from None


def _write(reader: Reader, into: Path, path: str, size: int) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        raise DiskFull(
            f"{path} of the model unpacks to {show_bytes(size)} and {show_bytes(free)} are free",
            hint="free some space (`corral prune`, `corral df`) and try again",
        )
    with disk_errors(f"unpack {path}"):
        make_directories(into, path.rpartition("/")[0])
        try:
            fd = os.open(into / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except FileExistsError:
            raise damaged(f"two of its files have the path {path!r}") from None
        with os.fdopen(fd, "wb", buffering=0) as file:
            while data := reader.read(PIECE_BYTES):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            sync_file(fd)
