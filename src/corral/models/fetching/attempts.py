"""How many failures a download has had since it last moved, shared by all its connections."""

from __future__ import annotations

import threading
from collections.abc import Callable

from corral.clock import monotonic
from corral.errors import RegistryError
from corral.models.fetching.control import Control
from corral.models.fetching.retry import Retry

PROGRESS_BYTES = 64 << 10
"""Less than this is no progress: a server that gives a byte and dies would be asked for ever."""


class Attempts:
    """Safe to call from several threads. Connections that fail together count as one failure."""

    def __init__(self, retry: Retry, control: Control, note: Callable[[str], None] = lambda text: None) -> None:
        self._retry = retry
        self._control = control
        self._note = note
        self._lock = threading.Lock()
        self._failures = 0
        self._moved = 0
        self._round = 0
        self._not_before = 0.0

    def begin(self) -> int:
        """Waits as long as the last failure demands; the number to give to `failed`. Raises Stopped."""
        while True:
            with self._lock:
                number, wait_s = self._round, self._not_before - monotonic()
            if wait_s <= 0:
                self._control.check()
                return number
            self._control.wait(wait_s)

    def failed(self, error: RegistryError, number: int) -> None:
        """Counts the failure of what `begin` allowed. Raises `error` when trying again is no use."""
        with self._lock:
            if number != self._round:
                return  # others failed at the same time, and it was counted then
            self._failures += 1
            self._moved = 0
            delay_s = self._retry.delay_s(error, self._failures)
            if delay_s is None:
                raise error
            self._round += 1
            self._not_before = monotonic() + delay_s
        self._note(f"{error.message}; trying again" + (f" in {delay_s:.0f} s" if delay_s >= 1 else ""))

    def moved(self, count: int) -> None:
        """Says that `count` bytes came that were not there before."""
        with self._lock:
            self._moved += count
            if self._moved >= PROGRESS_BYTES:
                self._failures = 0

    def settled(self) -> None:
        """Says that a part became whole, however small it is."""
        with self._lock:
            self._failures = 0
