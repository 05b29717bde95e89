"""Holds: what a running unit, pull or push uses, said to every process by locks that die with their owners."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

from corral.store import durable, locks
from corral.store.blobs import Blobs
from corral.store.locks import StoreLock


class Hold:
    """Digests in use, from its making until `release` or the end of the block. A manifest stands for its model."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def release(self) -> None:
        """Twice is once."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold(blobs: Blobs, lock: StoreLock, digests: tuple[str, ...], *, absent_ok: bool) -> Hold:
    """Raises NotInStore when one is not here, unless `absent_ok`: a pull holds what it is about to fetch."""
    fds: list[int] = []
    held = Hold(fds)
    try:
        # A sweep and a removal have the lock exclusively: they see this hold, or are over and done with.
        with durable.disk_errors("hold a model"), lock.shared():
            for digest in digests:
                fd = locks.take(blobs.layout.holds / blobs.layout.blob(digest).name, shared=True, wait_s=locks.BUSY_S)
                assert fd is not None, "exclusive locks on it are momentary"
                fds.append(fd)
                if not absent_ok:
                    blobs.get(digest)
    except BaseException:
        held.release()
        raise
    return held


def is_held(blobs: Blobs, digest: str) -> bool:
    """Whether anybody holds `digest` itself at this moment."""
    return not locks.free(blobs.layout.holds / blobs.layout.blob(digest).name)


def held(blobs: Blobs) -> set[str]:
    """Every digest that is held. The caller has the store's lock exclusively: files nobody has are removed."""
    found = set()
    for file in blobs.layout.holds.iterdir():
        if not locks.free(file):
            found.add(f"sha256:{file.name}")
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    return found
