"""What a download asks while it runs: go on, wait, or stop."""

from __future__ import annotations

import threading
from typing import Literal

from corral.clock import monotonic

Why = Literal["paused", "cancelled", "closing"]


class Stopped(Exception):
    """The download was told to stop; what it has so far stays. `why` says by whom it was told."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


class Limit:
    """A bound on bytes per second that several downloads share. Safe to call from several threads."""

    def __init__(self, bytes_per_s: float) -> None:
        if bytes_per_s <= 0:
            raise ValueError("a limit is more than 0 bytes per second")
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = monotonic()

    def book(self, count: int) -> float:
        """Books `count` bytes; the seconds to wait before the next are asked for. A tenth of a second is kept free."""
        with self._lock:
            now = monotonic()
            self._free_at = max(self._free_at, now - 0.1) + count / self.bytes_per_s
            return max(0.0, self._free_at - now)


class Control:
    """The reins of one run of a download, held by whoever may stop it. Safe to call from several threads."""

    def __init__(self, limit: Limit | None = None) -> None:
        self._limit = limit
        self._why: Why | None = None
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._parts: list[Control] = []

    def part(self) -> Control:
        """The reins of a part of it, which can be stopped alone too."""
        part = Control(self._limit)
        with self._lock:
            self._parts.append(part)
            why = self._why
        if why is not None:
            part.stop(why)
        return part

    def stop(self, why: Why) -> None:
        """Makes every `check` and `wait` raise. The first reason stays."""
        with self._lock:
            if self._why is None:
                self._why = why
            parts = list(self._parts)
        self._told.set()
        for part in parts:
            part.stop(why)

    @property
    def stopped(self) -> bool:
        return self._told.is_set()

    def check(self) -> None:
        """Raises Stopped when told to stop."""
        if self._why is not None:
            raise Stopped(self._why)

    def wait(self, seconds: float) -> None:
        """Blocks for `seconds`. Raises Stopped as soon as told to stop."""
        if seconds > 0:
            self._told.wait(seconds)
        self.check()

    def grain(self, most: int) -> int:
        """How much to read at once, up to `most`, for the limit to be kept evenly."""
        return most if self._limit is None else max(1, min(most, int(self._limit.bytes_per_s / 10)))

    def took(self, count: int) -> None:
        """Says that `count` bytes were received; blocks while that is more than the limit. Raises Stopped."""
        if self._limit is not None:
            self.wait(self._limit.book(count))
        else:
            self.check()
