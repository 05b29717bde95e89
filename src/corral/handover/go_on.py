"""The new server's side after it took over: connections as the old one passes them, and its answers that still run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from corral.errors import CorralError
from corral.gateway.listen import Listeners
from corral.handover.passing import Message, Way
from corral.handover.take import Taken, early_bytes


class Spawn(Protocol):
    def __call__(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


class GoingOn:
    """Made once the engines are adopted and the addresses open. For each answer that the old server still relays it
    holds a lease, so that the answer's engine counts as busy."""

    def __init__(
        self,
        taken: Taken,
        listeners: Listeners,
        lease: Callable[[str], AbstractAsyncContextManager[Any]],
        spawn: Spawn,
    ) -> None:
        self._listeners, self._lease, self._spawn = listeners, lease, spawn
        self._held: dict[str, list[asyncio.Event]] = {}  # set to end one
        self.hold(taken.held)
        self._way = Way(taken.way, self._heard, lambda: self.hold({}), taken.inbox)
        for message, sock in taken.early:
            self._heard(message, sock)
        taken.early.clear()

    def hold(self, held: Mapping[str, int]) -> None:
        """Makes the leases as many as `held` says."""
        for model in {*held, *self._held}:
            ends = self._held.setdefault(model, [])
            while len(ends) > held.get(model, 0):
                ends.pop().set()
            while len(ends) < held.get(model, 0):
                ends.append(asyncio.Event())
                self._spawn(self._keep(model, ends[-1]), name=f"an answer of {model} that still runs")

    async def _keep(self, model: str, end: asyncio.Event) -> None:
        try:
            async with self._lease(model):
                await end.wait()
        except CorralError:
            return  # its model is not served any more

    def _heard(self, message: Message, sock: socket.socket | None) -> None:
        if message.get("kind") == "held":
            self.hold(message["held"])
        elif message.get("kind") == "connection" and sock is not None:
            self._spawn(self._listeners.take(message["where"], sock, early_bytes(message)), name="take a connection")

    def close(self) -> None:
        """Idempotent."""
        self._way.close()
        self.hold({})
