"""The event log: what happened, in order, bounded, with followers that can never hold it up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from corral import clock
from corral.api import EventInfo

KEPT = 10_000
"""Entries kept; the oldest go first."""


class EventLog:
    """Append-only in memory. One event loop posts to it; any number of tasks follow it."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[EventInfo] = deque(maxlen=kept)
        self._next = 1
        self._changed = asyncio.Event()
        self.keep: Callable[[EventInfo], None] = lambda entry: None  # told of every entry; must neither block nor raise

    def resume(self, entries: Sequence[EventInfo], number: int) -> None:
        """Goes on after an earlier daemon's `entries`, the next one having this `number`. Before anything is posted."""
        self._entries.extend(entries)
        self._next = number

    def post(
        self, kind: str, text: str, *, model: str | None = None, unit: str | None = None, **data: Any
    ) -> EventInfo:
        entry = EventInfo(self._next, clock.wall(), kind, model, unit, text, data)
        self._next += 1
        self._entries.append(entry)
        self.keep(entry)
        self._changed.set()
        return entry

    @property
    def last_seq(self) -> int:
        """The newest entry's number; 0 when nothing happened yet."""
        return self._next - 1

    def since(self, seq: int = 0, *, model: str | None = None) -> list[EventInfo]:
        """The kept entries with a number above `seq`, oldest first."""
        if not self._entries or seq >= self.last_seq:
            return []
        found = []
        for entry in reversed(self._entries):  # numbers rise, with gaps where an earlier daemon ended
            if entry.seq <= seq:
                break
            if model is None or entry.model == model:
                found.append(entry)
        found.reverse()
        return found

    async def follow(self, seq: int = 0, *, model: str | None = None) -> AsyncIterator[EventInfo]:
        """Every entry above `seq`, then new ones as they come, for ever.

        A follower that falls more than the kept number behind misses the oldest, and sees so by the gap in `seq`.
        """
        while True:
            newest = self.last_seq  # taken first: more may be posted while the follower handles an entry
            for entry in self.since(seq, model=model):
                yield entry
            seq = max(seq, newest)
            if self.last_seq > seq:
                continue
            self._changed.clear()
            await self._changed.wait()
