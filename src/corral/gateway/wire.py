"""`WireExchange`: an exchange on a `Connection` of ours: its request body as it comes in, its answer's framing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol

from corral import clock
from corral.errors import CorralError, TooLarge
from corral.gateway.course import Course
from corral.gateway.exchange import ClientLeft, Exchange
from corral.gateway.http.chunks import Chunks
from corral.gateway.http.head import Head
from corral.gateway.http.headers import Fields, first
from corral.units import show_bytes

STATUS_LINES = {int(each): f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS = (204, 304)
_AHEAD_BYTES = 4 << 20
"""Of a body that is read piece by piece, as much is kept; then its client waits."""


Work = Callable[[Exchange], Coroutine[Any, Any, None]]


class Link(Protocol):
    """What an exchange needs of its connection."""

    keep_alive: bool
    peer: str

    def standing_fields(self) -> bytes:
        """The fields every answer carries, as lines."""
        ...

    def transmit(self, data: bytes) -> bool:
        """Sends; False when the client is behind."""
        ...

    def post(self, data: bytes) -> None:
        """Sends, perhaps with all else that goes out in this turn of the event loop."""
        ...

    async def drained(self) -> None: ...

    def answered(self) -> None:
        """The answer has been sent to its end."""
        ...

    def run(self, exchange: WireExchange, work: Work | None = None) -> None:
        """Has a task answer `exchange`: by `work`, or from the beginning."""
        ...

    def left(self, exchange: WireExchange) -> None:
        """Nothing is done for `exchange` any more."""
        ...

    def done(self, exchange: WireExchange, now: float) -> None:
        """`left` and `answered` in one, `now`."""
        ...

    def break_off(self) -> None: ...

    def hold(self, on: bool) -> None:
        """Whether more of the body is to wait in the kernel."""
        ...


class WireExchange(Exchange):
    """One request on one connection."""

    _pending = b""  # the head, until there is something to send with it
    _chunked = False
    _bodiless = False
    _owed: int | None = None  # bytes of the declared length that are not sent yet
    _waiter: asyncio.Future[None] | None = None
    _failure: CorralError | None = None
    _chunks: Chunks | None = None
    _limit = 1 << 62
    taken = 0  # bytes of the body that came
    broken = False

    def __init__(self, link: Link, head: Head, length: int | None) -> None:
        """`length` is the one that the request declares; `head` may be that of an earlier one."""
        self.course = Course()
        self._link = link
        self.peer = link.peer
        self.method = head.method
        self.path = head.path
        self.raw_path = head.raw_path
        self.query = head.query
        self.headers = head.fields
        self._version = head.version
        self._expects = head.expects
        self._parts: list[bytes] = []
        self._declared = length or 0
        if head.chunked:
            self._chunks = Chunks()
        self.whole = not head.chunked and not length  # the request has come to its end

    # The request.

    def feed(self, data: bytes) -> int:
        """Takes in what belongs to the body; how many bytes of `data` that was. Raises CallerError."""
        if self._chunks is not None:
            pieces: list[bytes] = []
            used = self._chunks.feed(data, pieces)
            self.whole = self._chunks.done
            self.taken += sum(map(len, pieces))
        else:
            used = min(len(data), self._declared - self.taken)
            pieces = [data if used == len(data) else data[:used]]
            self.taken += used
            self.whole = self.taken == self._declared
        if self.ended or self.taken > self._limit:
            self._parts.clear()  # nobody wants it any more
        else:
            self._parts += pieces
        if self.whole or self.taken > self._limit or self.piecewise:
            self._wake()
            if self.piecewise and not self.whole and sum(map(len, self._parts)) > _AHEAD_BYTES:
                self._link.hold(True)
        return used

    def fail(self, error: CorralError, *, broken: bool = False) -> None:
        """The body will not come; `broken`: nobody can say where it would end."""
        self._failure = error
        self.broken = broken
        self._wake()

    def arrived(self) -> None:
        """The request is whole."""

    def resumed(self) -> None:
        """The client, which was behind, takes more again."""

    def dropped(self) -> None:
        """The task that answered it has ended."""

    @property
    def waits_for_leave(self) -> bool:
        """The client holds its body back until it is told to go on, and has not been told."""
        return self._expects and not self.taken and not self.whole

    async def body(self, limit: int) -> bytes:
        if self._declared > limit:
            raise _too_large(limit)
        self._limit = limit
        if not self.whole and self.waits_for_leave:
            self._expects = False
            self._link.transmit(CONTINUE)
        while not self.whole and self._failure is None and self.taken <= limit:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.taken > limit:
            raise _too_large(limit)
        if self._failure is not None:
            raise self._failure
        if self.gone:
            raise ClientLeft
        parts = self._parts
        self._parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        self.piecewise = True
        if not self.whole and self.waits_for_leave:
            self._expects = False
            self._link.transmit(CONTINUE)
        while True:
            if self._failure is not None:
                raise self._failure
            if self.gone:
                raise ClientLeft
            parts, self._parts = self._parts, []
            if parts:
                yield b"".join(parts)
                self._link.hold(False)
            elif self.whole:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The answer.

    def _begin(self, status: int, headers: Fields) -> None:
        link = self._link
        self.status = status
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, link.standing_fields()]
        lines += [b": ".join(field) + b"\r\n" for field in headers]
        length = first(headers, b"content-length")
        if self.method == "HEAD" or status in _BODILESS:
            self._bodiless = True
        elif length is not None:
            self._owed = int(length)
        elif self._version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            link.keep_alive = False  # the end of the connection is the end of the body
        if not self.whole:
            link.keep_alive = False  # what follows of the request is of no use to anybody
        if not link.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._pending = b"".join(lines)

    def send(self, chunk: bytes) -> bool:
        if self._bodiless or not chunk:
            return True
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        elif self._owed is not None:
            self._owed -= len(chunk)
        if self._pending:
            chunk, self._pending = self._pending + chunk, b""
            if not self.early:
                self.course.first = clock.monotonic()
        return self._link.transmit(chunk)

    def _finish(self, chunk: bytes) -> None:
        self.ended = True
        if self.piecewise:
            self._link.hold(False)
        data = self._pending
        if data and not self.early:
            self.course.first = clock.monotonic()
        if self._bodiless:
            pass
        elif self._chunked:
            data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk) if chunk else b"0\r\n\r\n"
        else:
            if self._owed is not None:
                self._owed -= len(chunk)
            data += chunk
        self._pending = b""
        if data:
            self._link.transmit(data)
        if self._owed:
            self._link.break_off()  # not the length that was promised
        else:
            self._link.answered()

    async def drained(self) -> None:
        await self._link.drained()

    def abort(self) -> None:
        self.ended = True
        self._link.break_off()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {show_bytes(limit)}", hint="max_body in models.yaml sets the bound", limit_bytes=limit
    )
