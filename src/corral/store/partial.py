"""Blobs on their way here: a file, the state of its download, and a lock that dies with its owner."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from types import TracebackType

from corral.errors import InUse, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable, locks
from corral.store.blobs import Blob, Blobs

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOCK, _STATE, _ABOUT = ".lock", ".state", ".json"


@dataclass(frozen=True, slots=True)
class PartialView:
    """One partial as it lies there."""

    key: str
    size: int | None  # of the whole blob
    bytes: int  # on the disk so far
    busy: bool  # somebody has it
    touched_wall_s: float


class Partial:
    """One blob's file while it is written. Its owner alone has it; its methods are called by one thread at a time.

    `path` is the file, made empty when new; `state_path` is where the owner keeps what it has of it (absent when new).
    Leaving the block, or dying, keeps both for the next owner. `opened_wall_s` is when this owner got it.
    """

    def __init__(self, blobs: Blobs, key: str, size: int | None) -> None:
        """Raises InUse when another thread or process has this key."""
        self.key, self.size = key, size
        self._blobs = blobs
        self.path = blobs.layout.partial / stem(key)
        self.state_path = self.path.with_suffix(_STATE)
        self._about = self.path.with_suffix(_ABOUT)
        self._lock_path = self.path.with_suffix(_LOCK)
        with durable.disk_errors("start a download in the store"):
            # Those who only look have it for microseconds.
            fd = locks.take(self._lock_path, wait_s=0.2)
            if fd is None:
                raise InUse(f"{key} is being fetched already", hint="wait for that download", key=key)
            self._fd: int | None = fd
            try:
                os.utime(fd)  # since when this owner has it: what is newer is not swept
                self._open()
            except BaseException:
                self.close()
                raise

    def finish(self, digest: str) -> Blob:
        """Makes the file the blob `digest`, on the disk when this returns. The caller has hashed and checked it.

        Raises StoreError when the file has another size than was promised.
        """
        if self._fd is None:
            raise StoreError(f"{self.key} was closed before it was finished", hint="this is a bug; please report it")
        target = self._blobs.layout.blob(digest)
        with durable.disk_errors(f"store {digest}"):
            fd = os.open(self.path, os.O_RDWR)
            try:
                size = os.fstat(fd).st_size
                if self.size is not None and size != self.size:
                    raise StoreError(
                        f"{target.name} has {size} bytes instead of {self.size}", hint="fetch it again", key=self.key
                    )
                durable.sync_file(fd)
            finally:
                os.close(fd)
        blob = self._blobs.put(self.path, digest)
        self.discard()
        return blob

    def discard(self) -> None:
        """Removes everything of it and gives the lock back. Twice is once."""
        if self._fd is not None:
            for each in (self.path, self.state_path, self._about, self._lock_path):
                each.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Gives the lock back and keeps what is there. Twice is once."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        about = {"key": self.key, "size": self.size}
        try:
            same = json.loads(self._about.read_bytes()) == about
        except (OSError, ValueError):
            same = False
        # Without its file (killed while it was finished) or with another size, a state describes nothing.
        if not same or not self.path.exists():
            for each in (self.path, self.state_path):
                each.unlink(missing_ok=True)
            durable.write_new(self._about, json.dumps(about).encode())
            self.path.touch(mode=0o644)
        os.utime(self._about)


def stem(key: str) -> str:
    """The file name of `key`'s partial: a digest's digits, or a hash of anything else."""
    if _DIGEST.fullmatch(key):
        return key[7:]
    return "k" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def partials(blobs: Blobs) -> list[PartialView]:
    """Every partial that is there."""
    views = []
    for about in sorted(blobs.layout.partial.glob(f"*{_ABOUT}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(about.read_bytes())
            seen = about.with_suffix("").stat()
            views.append(
                PartialView(
                    key=str(data["key"]),
                    size=data["size"],
                    bytes=seen.st_blocks * 512,
                    busy=not locks.free(about.with_suffix(_LOCK)),
                    touched_wall_s=max(seen.st_mtime, about.stat().st_mtime),
                )
            )
    return views


def oldest_open(blobs: Blobs) -> float | None:
    """Since when the partial that has been open longest is open, in wall seconds; None when none is."""
    since = []
    for lock in blobs.layout.partial.glob(f"*{_LOCK}"):
        with contextlib.suppress(OSError):
            seen = lock.stat().st_mtime
            if not locks.free(lock):
                since.append(seen)
    return min(since, default=None)


def sweep(blobs: Blobs, older_than_s: float, *, dry_run: bool) -> int:
    """Removes partials that nobody has and nobody touched for so long; bytes on the disk."""
    gone, now = 0, time.time()
    names = {each.name.split(".")[0] for each in blobs.layout.partial.iterdir()}
    for name in sorted(names):
        data = blobs.layout.partial / name
        lock = data.with_suffix(_LOCK)
        fd = locks.take(lock)
        if fd is None:
            continue
        try:
            files = [each for each in (data, data.with_suffix(_STATE), data.with_suffix(_ABOUT)) if each.exists()]
            seen = [each.stat() for each in files]
            if any(each.st_mtime >= now - older_than_s for each in seen):
                continue
            gone += sum(each.st_blocks * 512 for each in seen)
            if not dry_run:
                for each in (*files, lock):
                    each.unlink(missing_ok=True)
        finally:
            os.close(fd)
    return gone
