"""Locks between processes that die with their owner: flock on files of the store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.errors import StoreError

try:
    import fcntl
except ImportError:  # no server there, but the module still imports
    fcntl = None  # type: ignore[assignment]

BUSY_S = 60.0
"""How long a change waits for other processes' changes, which take milliseconds each."""


def take(path: Path, *, shared: bool = False, wait_s: float = 0.0) -> int | None:
    """A descriptor of `path`, made if need be, that has its lock; None when others have it for longer than `wait_s`.

    The lock ends when the descriptor is closed, by whatever. The file is still at `path` when this returns, so a lock
    file may be removed by whoever has its exclusive lock.
    """
    if fcntl is None:
        raise StoreError("this platform has no file locks", hint="run Corral on Linux, macOS or WSL2")
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline, pause_s = time.monotonic() + wait_s, 0.0002
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, kind)
            if _is_at(fd, path):
                return fd
            again = True  # its owner removed it between our open and our lock
        except BlockingIOError:
            again = False
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if again:
            continue
        if time.monotonic() >= deadline:
            return None
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)


def free(path: Path) -> bool:
    """Whether nobody has a lock on `path` at this moment. A file that is not there has none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class StoreLock:
    """The store's one lock: exclusive to change the index or sweep, shared to say what is in use. Held for moments."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()  # so that this process's threads queue instead of polling

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Raises StoreError when another process has the store locked for a minute. Not reentrant."""
        with self._threads:
            fd = self._take(shared=False)
            try:
                yield
            finally:
                os.close(fd)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Raises StoreError as `exclusive` does."""
        fd = self._take(shared=True)
        try:
            yield
        finally:
            os.close(fd)

    def _take(self, *, shared: bool) -> int:
        fd = take(self._path, shared=shared, wait_s=BUSY_S)
        if fd is None:
            raise StoreError(
                f"another process has had the store locked for {BUSY_S:.0f} s",
                hint=f"see who has {self._path} open; a stopped process has to go on or end",
            )
        return fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
