"""`Outbox`: what goes out once all that has come in this turn of the event loop was looked at.

Whoever gets something wakes up and, where the processors are busy, takes ours at once: between two requests that have
both come, each write would cost a change of processes and what our caches held. So while many requests run, whole ones
are written together. What a client waits for in pieces is not: it goes out as it comes.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

FEW: Final = 3
"""Requests that run at once, up to which nothing waits: mostly, only one of them comes in a turn."""


class Sender(Protocol):
    """Who has something that waits."""

    def let_out(self) -> None:
        """Sends it. Raises nothing."""
        ...


class Outbox:
    """Those who have something to send, in order. One event loop."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # known once something is to be sent
        self._waiting: list[Sender] = []

    def add(self, sender: Sender) -> None:
        if not self._waiting:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._empty)
        self._waiting.append(sender)

    def _empty(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sender in waiting:
            sender.let_out()
