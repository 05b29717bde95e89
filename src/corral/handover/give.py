"""The running server's side of a handover: in which order it lets go of what it has."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from corral import __version__, clock
from corral.errors import Stopping
from corral.gateway.listen import Listeners
from corral.handover.passing import Message, Way
from corral.handover.take import PROTOCOL, connection_message

_LOOK_S = 0.01
_LAST_S = 1.0


class Work(Protocol):
    """What is under way, as the scheduler knows it."""

    @property
    def waiting(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    def held(self) -> dict[str, int]:
        """Answers that run, by model."""
        ...


class GivingOver:
    """One handover, over `way` to the server that waits. `settled` says that no engine is starting or stopping."""

    def __init__(self, way: socket.socket, listeners: Listeners, work: Work, settled: Callable[[], bool]) -> None:
        self._listeners, self._work, self._settled = listeners, work, settled
        self._lost = False
        self.is_ready = False
        self._way = Way(way, self._heard, self._ended)
        self._wanted = False  # the other has the sockets, and still wants the rest
        self._lent: dict[str, list[socket.socket]] = {}

    def _ended(self) -> None:
        self._lost = True

    def _heard(self, message: Message, sock: socket.socket | None) -> None:
        self._wanted = message.get("kind") == "ready"

    async def prepare(self, within_s: float) -> bool:
        """Lends the listening sockets, and waits until every request has an engine; False when the other server went
        away, and everything is as before."""
        deadline = clock.monotonic() + within_s
        self._way.say(
            {"kind": "hello", "protocol": PROTOCOL, "pid": os.getpid(), "version": __version__, "within_s": within_s}
        )
        self._lent = self._listeners.lend()
        for where, sockets in self._lent.items():
            for each in sockets:
                self._way.say({"kind": "listener", "where": where}, each.dup())
        self._way.say({"kind": "lent"})
        self._listeners.pass_on(self._pass_on)
        while not self._lost and clock.monotonic() < deadline:
            if self._wanted and not self._work.waiting and self._settled() and self._all_at_engines():
                break
            await asyncio.sleep(_LOOK_S)
        if self._lost or not self._wanted:
            self._lost = True
            self._way.close()
            await self._listeners.resume(self._lent)
        else:
            _close(self._lent)
            self.is_ready = True
        return self.is_ready

    def _all_at_engines(self) -> bool:
        return not self._listeners.is_half_way and self._listeners.unanswered <= self._work.in_flight

    def give(self) -> None:
        """The word that everything but the running answers is the other's. The state directory is free by now."""
        self._way.say({"kind": "yours", "held": self._work.held()})
        self._listeners.leave(Stopping("another server has taken over", hint="ask it again", retry_after_s=1))

    async def until_answered(self, within_s: float) -> None:
        """Tells how many answers still run, until none does."""
        deadline = clock.monotonic() + within_s
        told: Mapping[str, int] = {}
        while self._listeners.in_flight and clock.monotonic() < deadline:
            if (held := self._work.held()) != told:
                told = held
                self._say({"kind": "held", "held": held})
            await asyncio.sleep(_LOOK_S * 5)
        self._say({"kind": "held", "held": {}})
        await asyncio.sleep(_LOOK_S * 5)  # connections whose last bytes were just going out
        with suppress(TimeoutError):
            async with asyncio.timeout(max(_LAST_S, deadline - clock.monotonic())):
                await self._way.finish()
        self._way.close()

    def _say(self, message: Message) -> None:
        self._way.say(message)

    def _pass_on(self, where: str, sock: socket.socket, early: bytes) -> None:
        self._way.say(connection_message(where, early), sock)

    def close(self) -> None:
        self._way.close()


def _close(lent: Mapping[str, list[socket.socket]]) -> None:
    for sockets in lent.values():
        for each in sockets:
            each.close()
