"""Pulling a model's files into the page cache while something else is waited for."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from corral.hardware.memory import read_memory
from corral.supervisor.resident import seen_in_cache

RESERVE_BYTES = 512 << 20
"""Memory that is left alone: what is pulled in must push nobody out."""

STEP_BYTES = 128 << 10
"""Asked for at a time. Linux reads no more for one call than the device's own read-ahead, 128 KiB by default."""

AHEAD_BYTES = 16 << 20
"""How far asking may be ahead of reading; enough to keep a disk busy, little enough to stop soon."""

LOOK_BYTES = 256 << 20
"""After so much the memory is looked at again."""

SKIP_BYTES = 2 << 20
"""A stretch whose both ends are in the cache is not asked for: for all of a file, asking or finding out about each page
takes 25 ms of a processor for each GiB, just when an engine loads."""


def supported() -> bool:
    """Whether this system can be asked to read ahead (Linux)."""
    return sys.platform == "linux" and hasattr(os, "posix_fadvise")


class Prefetch:
    """One run over some files. Blocks, so it belongs in a thread; `cancel` may come from any other."""

    def __init__(self, files: Sequence[Path], available: Callable[[], int] | None = None) -> None:
        self._files = files
        self._available = available or (lambda: read_memory().available_bytes)
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """It stops within `AHEAD_BYTES`. What was read stays in the cache."""
        self._cancelled.set()

    def run(self) -> int:
        """Has the files read, in order, and returns for how many bytes that was asked. A file that cannot be read is
        left to the engine to complain of."""
        if not supported():
            return 0
        asked = 0
        for file in self._files:
            with contextlib.suppress(OSError):
                asked += self._pull(file, asked)
        return asked

    def _pull(self, file: Path, before: int) -> int:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with seen_in_cache(fd) as cached:
                return self._ask(fd, before, cached)
        finally:
            os.close(fd)

    def _ask(self, fd: int, before: int, cached: Callable[[int], bool]) -> int:
        size, at, look_at = os.fstat(fd).st_size, 0, 0
        while at < size and not self._cancelled.is_set():
            if at >= look_at:
                # What is in the page cache counts as available, so this is room for what was read before as well.
                room = self._available() - RESERVE_BYTES - before
                look_at = min(at + LOOK_BYTES, room)
                if at >= room:
                    break  # an engine that maps the file reads the rest as it needs it
            if at % SKIP_BYTES == 0 and cached(at) and cached(min(at + SKIP_BYTES, size) - 1):
                at += SKIP_BYTES
                continue
            os.posix_fadvise(fd, at, STEP_BYTES, os.POSIX_FADV_WILLNEED)
            at += STEP_BYTES
            if at % AHEAD_BYTES == 0 and at > AHEAD_BYTES:
                os.pread(fd, 1, at - AHEAD_BYTES)  # waits until the disk got there
        return min(at, size)
