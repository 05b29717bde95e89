"""Blobs: finding them, reading small ones, and putting new ones in place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from corral.descriptors import MAX_MANIFEST_BYTES, decode_json, digest_of
from corral.errors import DigestMismatch, DiskFull, ManifestError, NotInStore, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable, origins
from corral.store.layout import Layout
from corral.store.locks import StoreLock
from corral.store.scratch import scratch
from corral.units import show_bytes

SPARE_BYTES = 32 << 20
"""What is never filled up: the index and the records need a little to be changed, even to remove something."""

HASH_CHUNK_BYTES = 1 << 20
BLOB_MODE = 0o444
"""Blobs never change; an engine or a tool that opens one for writing by mistake is refused."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A whole blob. `path` is a plain file to read; for an external one, the file outside the store."""

    digest: str
    path: Path
    size: int
    kind: Literal["file", "external"]


class Blobs:
    """The blobs of one store. Thread-safe."""

    def __init__(self, layout: Layout, lock: StoreLock) -> None:
        self.layout = layout
        self.lock = lock

    def find(self, digest: str) -> Blob | None:
        """The blob, when it is here and its file is what it was when it was hashed. Takes a few microseconds."""
        path = self.layout.blob(digest)
        try:
            seen = path.lstat()
        except OSError:
            return None
        if stat.S_ISREG(seen.st_mode):
            origin = origins.read(self.layout, digest)
            # A record of another inode is left from before this file was put here.
            changed = origin is not None and origin.inode == seen.st_ino and not origin.fits(seen)
            return None if changed else Blob(digest, path, seen.st_size, "file")
        if stat.S_ISLNK(seen.st_mode):
            return self._external(digest, path)
        return None

    def get(self, digest: str) -> Blob:
        """Raises NotInStore when there is no such blob, or its file outside the store has changed."""
        found = self.find(digest)
        if found is None:
            raise self.missing(digest)
        return found

    def _external(self, digest: str, path: Path) -> Blob | None:
        origin = origins.read(self.layout, digest)
        if origin is None or origin.how != "reference":
            return None
        try:
            seen = path.stat()
        except OSError:
            return None
        whole = stat.S_ISREG(seen.st_mode) and origin.fits(seen)
        return Blob(digest, Path(origin.path), seen.st_size, "external") if whole else None

    def missing(self, digest: str) -> NotInStore:
        """The error for a blob that `find` does not give, with the reason."""
        origin = origins.read(self.layout, digest)
        if origin is not None and self.layout.blob(digest).is_symlink():
            gone = "has changed" if Path(origin.path).exists() else "is gone"
            return NotInStore(
                f"{origin.path}, which the store refers to, {gone}",
                hint="`corral verify --repair` fetches it again, or import the model anew",
                digest=digest,
            )
        return NotInStore(f"{digest} is not in the store", hint="pull or import the model", digest=digest)

    def read(self, digest: str, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small blob's bytes, checked against its digest.

        Raises NotInStore, ManifestError when it has more than `limit` bytes, DigestMismatch when it is damaged.
        """
        blob = self.get(digest)
        if blob.size > limit:
            raise ManifestError(
                f"{digest} has {blob.size} bytes where {limit} are allowed", hint="it is no manifest or config"
            )
        try:
            with durable.disk_errors(f"read {digest}"), blob.path.open("rb") as file:
                data = file.read(limit + 1)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # collected by another process meanwhile
                raise self.missing(digest) from error
            raise
        if digest_of(data) != digest:
            raise DigestMismatch(
                f"the store's file of {digest} is damaged",
                hint="`corral verify --repair` fetches it again",
                path=str(blob.path),
            )
        return data

    def read_json(self, digest: str) -> dict[str, Any]:
        """Raises as `read` does, and ManifestError when it is no JSON object."""
        return decode_json(self.read(digest), digest)

    def add_bytes(self, data: bytes) -> tuple[str, int]:
        """Digest and size of `data`, which is a blob on the disk when this returns."""
        digest = digest_of(data)
        if not self.refresh(digest):
            with self.scratch() as directory:
                file = directory / "blob"
                durable.write_new(file, data)
                self.put(file, digest)
        return digest, len(data)

    def refresh(self, digest: str) -> bool:
        """Whether the blob is here; when it is, a sweep takes it for new and waits for a name to point to it."""
        blob = self.find(digest)
        if blob is None:
            return False
        record = origins.record_path(self.layout, digest)
        try:
            # The time of a file that others use too is theirs, and part of its record.
            touch(record if blob.kind == "external" or record.exists() else blob.path)
        except OSError:
            return self.find(digest) is not None  # another user's store, or swept this very moment
        return True

    def put(self, file: Path, digest: str) -> Blob:
        """Renames `file`, hashed and fsynced, to the blob `digest`; its name is on the disk when this returns."""
        target = self.layout.blob(digest)
        with durable.disk_errors(f"store {digest}"):
            with contextlib.suppress(PermissionError):  # moved here, and another user's
                touch(file)
                file.chmod(BLOB_MODE)
            with self.lock.exclusive():  # the file and its record change together
                file.replace(target)
                origins.drop(self.layout, digest)  # of an external one that was here before
            durable.sync_directory(target.parent)
        return self.get(digest)

    def put_shared(self, file: Path, digest: str, origin: origins.Origin, directory: Path) -> Blob:
        """As `put`, for a link to a file that others have too: never changed, and recorded before it is a blob."""
        target = self.layout.blob(digest)
        with durable.disk_errors(f"store {digest}"):
            with self.lock.exclusive():
                origins.write(self.layout, digest, origin, directory)
                touch(origins.record_path(self.layout, digest))
                file.replace(target)
            durable.sync_directory(target.parent)
        return self.get(digest)

    def room(self) -> int:
        """Bytes that this user may still write into the store's file system."""
        with durable.disk_errors("look at the store's file system"):
            seen = os.statvfs(self.layout.root)
        return seen.f_bavail * seen.f_frsize

    def require_room(self, size: int) -> None:
        """Raises DiskFull when `size` more bytes do not fit, with a little left over for everybody else."""
        room = max(0, self.room() - SPARE_BYTES)
        if room < size:
            raise DiskFull(
                f"{show_bytes(size)} do not fit: {self.layout.root} has room for {show_bytes(room)}",
                hint="free some space (`corral prune`, `corral df`), or set CORRAL_DATA_DIR to a larger disk",
                need_bytes=size,
                room_bytes=room,
            )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory for one operation. Errors of the disk come out as StoreError and DiskFull."""
        with durable.disk_errors("write to the store"), scratch(self.layout, self.lock) as directory:
            yield directory


def touch(file: Path) -> None:
    """Says that a blob came now. By the clock that removals are stamped with: the kernel's own is some ms behind it."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def hash_file(
    file: FileIO, *, copy_to: int | None = None, on_bytes: Callable[[int], None] | None = None
) -> tuple[str, int]:
    """Digest and size of what `file` has from here on, read once; copied to the descriptor `copy_to` on the way.

    `on_bytes` is told how many bytes there were so far.
    """
    hashed, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(HASH_CHUNK_BYTES))
    while count := file.readinto(buffer):
        part = buffer[:count]
        hashed.update(part)
        size += count
        while copy_to is not None and part:
            part = part[os.write(copy_to, part) :]
        if on_bytes is not None:
            on_bytes(size)
    return "sha256:" + hashed.hexdigest(), size
