"""Files of this machine as blobs: moved, hard-linked, cloned, copied, or left where they are."""

from __future__ import annotations

import os
import stat
import sys
from io import FileIO
from pathlib import Path
from typing import Literal

from corral.errors import DigestMismatch, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable, origins
from corral.store.blobs import Blobs, hash_file

try:
    import fcntl
except ImportError:  # no server there, but the module still imports
    fcntl = None  # type: ignore[assignment]

How = Literal["auto", "move", "hardlink", "reflink", "copy", "reference"]
Done = Literal["move", "hardlink", "reflink", "copy", "reference", "present"]

_FICLONE = 0x40049409
"""The ioctl that lets a file share another's blocks until one of them is written. Source: Linux, uapi/linux/fs.h."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file. `how` is "present" when the store had its content already."""

    digest: str
    size: int
    how: Done


class CannotShare(Exception):
    """This way is not possible between these two places; the message says why."""


def add_file(blobs: Blobs, path: Path, how: How, digest: str | None) -> Added:
    """Adds the file at `path`, symbolic links followed, and hashes it once whatever its name says.

    auto is the first of reflink, hardlink and copy that is possible. A moved file is gone from its place at the end;
    the others leave it alone. Hard-linked and referred-to files are looked at again before each use.

    Raises StoreError when it cannot be read, changes meanwhile, or cannot be added in this way; DigestMismatch when
    it is not `digest`; DiskFull.
    """
    with durable.disk_errors(f"add {path}"):
        real = path.resolve(strict=True)
        with open(real, "rb", buffering=0, opener=_open_now) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise StoreError(f"{path} is no plain file", hint="name the file itself")
            return _add(blobs, real, file, before, how, digest)


def _open_now(path: str, flags: int) -> int:
    # Opening a named pipe otherwise waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)


def _add(blobs: Blobs, path: Path, file: FileIO, before: os.stat_result, how: How, digest: str | None) -> Added:
    ways: tuple[How, ...] = ("reflink", "hardlink", "copy") if how == "auto" else (how,)
    with blobs.scratch() as directory:
        target = directory / "blob"
        for way in ways:
            try:
                return _WAYS[way](_Work(blobs, path, file, before, directory, target, digest))
            except CannotShare as error:
                target.unlink(missing_ok=True)
                if way == ways[-1]:
                    raise StoreError(
                        f"{path} cannot be added as {way}: {error}", hint="use copy, or reference to leave it in place"
                    ) from error
    raise AssertionError("the last way returns or raises")


@dataclass(frozen=True, slots=True)
class _Work:
    blobs: Blobs
    path: Path
    file: FileIO
    before: os.stat_result
    directory: Path
    target: Path
    expected: str | None

    def check(self, digest: str) -> None:
        """Raises when the content is not what was promised, or was changed while it was read."""
        after = os.fstat(self.file.fileno())
        if (self.before.st_size, self.before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise StoreError(f"{self.path} was changed while it was read", hint="wait until it is whole and try again")
        if self.expected is not None and digest != self.expected:
            raise DigestMismatch(
                f"{self.path} is {digest} and not {self.expected}", hint="it is damaged, or another file", found=digest
            )

    def hashed(self) -> tuple[str, int]:
        self.file.seek(0)
        digest, size = hash_file(self.file)
        self.check(digest)
        return digest, size

    def same_file_system(self) -> None:
        if self.before.st_dev != self.directory.stat().st_dev:
            raise CannotShare("it is in another file system than the store")


def _reflink(work: _Work) -> Added:
    if fcntl is None or sys.platform != "linux":
        raise CannotShare("this platform has no FICLONE")
    work.same_file_system()
    with work.target.open("w+b", buffering=0) as clone:
        try:
            fcntl.ioctl(clone.fileno(), _FICLONE, work.file.fileno())
        except OSError as error:
            raise CannotShare(error.strerror or str(error)) from error
        digest, size = hash_file(clone)
        work.check(digest)
        if work.blobs.refresh(digest):
            return Added(digest, size, "present")
        durable.sync_file(clone.fileno())
    work.blobs.put(work.target, digest)
    return Added(digest, size, "reflink")


def _hardlink(work: _Work) -> Added:
    work.same_file_system()
    try:
        work.target.hardlink_to(work.path)
    except OSError as error:
        raise CannotShare(error.strerror or str(error)) from error
    if work.target.stat().st_ino != work.before.st_ino:
        raise StoreError(f"{work.path} was replaced while it was read", hint="try again")
    digest, size = work.hashed()
    if work.blobs.refresh(digest):
        return Added(digest, size, "present")
    origin = origins.origin_of(work.path, "hardlink", work.before)
    work.blobs.put_shared(work.target, digest, origin, work.directory)
    return Added(digest, size, "hardlink")


def _reference(work: _Work) -> Added:
    digest, size = work.hashed()
    if work.blobs.refresh(digest):
        return Added(digest, size, "present")
    work.target.symlink_to(work.path)
    origin = origins.origin_of(work.path, "reference", work.before)
    work.blobs.put_shared(work.target, digest, origin, work.directory)
    return Added(digest, size, "reference")


def _copy(work: _Work) -> Added:
    work.blobs.require_room(work.before.st_size)
    work.file.seek(0)
    with work.target.open("wb", buffering=0) as copy:
        digest, size = hash_file(work.file, copy_to=copy.fileno())
        work.check(digest)
        if work.blobs.refresh(digest):
            return Added(digest, size, "present")
        durable.sync_file(copy.fileno())
    work.blobs.put(work.target, digest)
    return Added(digest, size, "copy")


def _move(work: _Work) -> Added:
    try:
        work.same_file_system()
    except CannotShare:
        done = _copy(work)
    else:
        digest, size = work.hashed()
        if work.blobs.refresh(digest):
            done = Added(digest, size, "present")
        else:
            durable.sync_file(work.file.fileno())
            work.path.replace(work.target)
            if work.before.st_nlink > 1:  # somebody has it under another name too
                origin = origins.origin_of(work.path, "hardlink", work.before)
                work.blobs.put_shared(work.target, digest, origin, work.directory)
            else:
                work.blobs.put(work.target, digest)
            done = Added(digest, size, "move")
    work.path.unlink(missing_ok=True)
    return Added(done.digest, done.size, "present" if done.how == "present" else "move")


_WAYS = {"reflink": _reflink, "hardlink": _hardlink, "reference": _reference, "copy": _copy, "move": _move}
