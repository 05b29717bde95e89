"""`Connections`: the connections of one listener, and what they share: bounds, heads that were read, one timer."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from corral import clock
from corral.gateway.exchange import Exchange
from corral.gateway.http.head import Head
from corral.gateway.http.heads import Heads
from corral.gateway.http.outbox import Outbox
from corral.gateway.http.room import most_connections
from corral.gateway.path.fast import Fast, Plan
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from corral.gateway.connection import Connection


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of us. Times are in seconds."""

    head_s: float = 30.0  # for a request's head, from its first byte; also for the first byte of a connection
    body_s: float = 30.0  # for its body, and what the size of the body adds
    body_bytes_per_s: int = 4096
    keep_alive_s: float = 75.0  # idle: longer than clients usually pool theirs, so that they close first
    unread_s: float = 300.0  # no piece of the answer is taken
    linger_s: float = 5.0  # for the rest of a request that was answered already, and for last bytes to go out
    linger_bytes: int = 64 << 20
    early_bytes: int = 64 << 10  # of further requests while one is answered; then they wait in the kernel
    look_s: float = 1.0  # how often these times are looked at
    connections: int | None = None  # open at once on one address; None = as many as the process has room for


LIMITS = Limits()


class Answers(Protocol):
    """What is behind the connections of one listener."""

    active: set[Exchange]

    fast: Fast | None

    def answer(self, exchange: Exchange) -> Coroutine[Any, Any, None]: ...

    def over(self, exchange: Exchange) -> None:
        """The task that answered it has ended."""
        ...


Heir = Callable[[socket.socket, bytes], None]
"""Takes a connection that waits for a request, and what of it came already: another server goes on with it."""


@dataclass(slots=True, eq=False)
class Usual:
    """A head of the fast path that may come again, with another length."""

    before: bytes  # the digits of the length
    after: bytes
    head: Head
    plan: Plan

    def body(self, data: bytes) -> bytes | None:
        """The body of a request that begins so, where `data` is all of it and nothing else."""
        before, after = self.before, self.after
        at = len(before)
        end = data.find(b"\r", at, at + 6)
        if data.startswith(before) and data.startswith(after, end):
            body = data[end + len(after) :]
            if data[at:end] == b"%d" % len(body):
                return body
        return None


class Connections:
    """The connections of one listener, with what they share. Once there is an `heir`, whichever waits for a request is
    passed on to it."""

    def __init__(self, answers: Answers, limits: Limits) -> None:
        self.answers = answers
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._most = most_connections() if limits.connections is None else limits.connections
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._fields = b""
        self.heir: Heir | None = None
        self.heads = Heads()
        self.usual: Usual | None = None  # the last head that was
        self.outbox = Outbox()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def standing_fields(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._fields = b"date: %b\r\nserver: corral\r\n" % formatdate(second, usegmt=True).encode()
        return self._fields

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.look_s, self._look)

    @property
    def are_too_many(self) -> bool:
        return len(self._open) > self._most

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """One timer for all: a timer each would cost every request more than its bounds are worth."""
        self._timer = self.loop.call_later(self.limits.look_s, self._look)
        now = clock.monotonic()
        for connection in self:
            if connection.deadline < now:
                connection.expire()
