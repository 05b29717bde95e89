"""One HTTP request to an engine.

A connection is kept only after a plain answer of known length: llama.cpp closes one after each streamed answer although
it says it keeps it alive. A kept one may be closed just as it is used again, so what must not be sent twice gets a
connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import httptools

from corral.engines.plan import Endpoint
from corral.errors import EngineError, EngineGone
from corral.gateway.path.link import Link, Pool, connect

HIGH_BYTES = 256 << 10
"""So much is taken in unread, then the engine has to wait until somebody reads: a slow client slows the engine."""

MAX_HEAD_BYTES = 256 << 10
CONNECT_S = 10.0
_BODILESS = (204, 304)
_WITH_LENGTH = frozenset(("POST", "PUT", "PATCH"))

Sink = Callable[[bytes], bool]
"""Takes a piece of the body at once; False when it should get no more for now."""


class Response:
    """An engine's answer while it arrives on `link`."""

    # What the parser need not call. It looks for these, and not finding them would cost an exception each.
    on_status = on_chunk_header = on_chunk_complete = None

    def __init__(self, link: Link, head_only: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.reusable = False  # the answer is over, and its connection good for another
        self._link = link
        self._head_only = head_only
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._have_head = False
        self._delimited = False  # by a length or by chunks; else the end of the connection is the end of the body
        self._done = False
        self._error: Exception | None = None
        link.receiver = self

    # What the gateway calls.

    async def read(self) -> bytes:
        """All that has arrived since the last call, at least one byte; empty at the end of the body.

        Raises EngineGone when the connection ended before the answer did, EngineError when it is no HTTP.
        """
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._done:
                return b""
            await self._wait()
        return self._taken()

    async def pour(self, sink: Sink, room: Callable[[], Awaitable[None]]) -> None:
        """Gives the whole body to `sink`, each piece in the moment it arrives: no task has to be woken for it.

        When `sink` says False, nothing more is given to it until `room()` has returned. Raises as `read` does, and what
        `sink` raises.
        """
        while data := await self.read():
            if not sink(data):
                await room()
            elif not self._done and self._error is None:
                self._sink = sink
                try:
                    await self._wait()
                finally:
                    self._sink = None
                await room()

    @property
    def buffered_bytes(self) -> int:
        """Received and not yet read."""
        return self._size

    # What `request` calls.

    async def head(self) -> None:
        """Waits until the head is there. Raises as `read` does."""
        while not self._have_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    def forget(self) -> None:
        """Nothing more is wanted."""
        self._parser = None  # it and we refer to each other
        self._sink = None

    def _taken(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._size = 0
        return data

    async def _wait(self) -> None:
        self._link.listen()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the link calls.

    def received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._done:
            self.reusable = False  # more than was asked for
            return
        if not self._have_head:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.reusable = False
            if not self._done:
                self._error = EngineError(f"the engine's answer is no HTTP: {exc}", hint="see its log")
        if not self._have_head and self._head_bytes > MAX_HEAD_BYTES and self._error is None:
            self._error = EngineError("the engine's answer has too large a head", hint="see its log")
        if self._sink is not None and self._parts:
            self._flow(self._sink)
            return
        if self._size > HIGH_BYTES:
            self._link.pause()
        self._wake()

    def _flow(self, sink: Sink) -> None:
        """Gives what has arrived to `sink`, and wakes the task only when it has something to do."""
        try:
            going = sink(self._taken())
        except Exception as exc:  # noqa: BLE001 - it belongs to whoever waits in `pour`
            self._error = exc
            going = False
        if not going or self._done or self._error is not None:
            self._sink = None
            if not self._done:
                self._link.pause()
            self._wake()

    def lost(self, *, broken: bool) -> None:
        if self._have_head and not self._delimited and not broken:
            self._done = True
        elif self._error is None and not self._done:
            self._error = gone(
                "the engine's connection ended before its answer did"
                if self._have_head
                else "the engine closed the connection without an answer",
                sent_any=self._have_head,
            )
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._done:
            self.reusable = False
            return
        self.headers = []
        self.content_length = None
        self._delimited = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._done or self._have_head:
            return  # what comes behind the body is a trailer
        name = name.lower()
        if name == b"content-length":
            self._delimited = True
            self.content_length = int(value)
        elif name == b"transfer-encoding":
            self._delimited = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._done:
            return
        self.status = self._parser.get_status_code()  # type: ignore[union-attr]
        if self.status >= 200:
            self._have_head = True
            if self._head_only or self.status in _BODILESS:
                self._done = True
            else:
                self.reusable = self.content_length is not None and self._parser.should_keep_alive()  # type: ignore[union-attr]

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self._done = True

    @property
    def over(self) -> bool:
        """The answer has come to its end, and nothing else was wrong."""
        return self._done and self._error is None


def request(
    endpoint: Endpoint,
    method: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes = b"",
    *,
    pool: Pool | None = None,
    connect_s: float = CONNECT_S,
) -> AbstractAsyncContextManager[Response]:
    """Sends a request and gives the answer once its head is there; leaving the block closes the connection.

    `headers` go out as they are, with host, connection and length added. With a `pool` its connections are used, and
    one that turns out to be closed is replaced: only for requests that may be sent twice.

    Raises EngineGone; its `untouched` detail is true when the engine saw nothing of the request, its `sent_any` when
    a part of the answer had come. EngineError when the answer is no HTTP.
    """
    lines = [b"%b %b HTTP/1.1\r\nhost: localhost\r\n" % (method.encode("ascii"), target)]
    if pool is None:
        lines.append(b"connection: close\r\n")
    lines += [b": ".join(field) + b"\r\n" for field in headers]
    if body or method in _WITH_LENGTH:
        lines.append(b"content-length: %d\r\n" % len(body))
    lines.append(b"\r\n")
    return _Asking(endpoint, (b"".join(lines), body), method == "HEAD", pool, connect_s)


class _Asking(AbstractAsyncContextManager[Response]):
    """One request from connecting to closing."""

    __slots__ = ("_connect_s", "_endpoint", "_head_only", "_link", "_pool", "_request", "_response")

    def __init__(
        self,
        endpoint: Endpoint,
        request: tuple[bytes, bytes],
        head_only: bool,
        pool: Pool | None,
        connect_s: float,
    ) -> None:
        self._endpoint, self._request, self._head_only = endpoint, request, head_only
        self._pool, self._connect_s = pool, connect_s

    async def __aenter__(self) -> Response:
        link = self._pool.take(self._endpoint) if self._pool is not None else None
        if link is None:
            return await self._ask(await self._connected(untouched=True))
        try:
            return await self._ask(link)
        except EngineGone as exc:
            if exc.details["sent_any"]:
                raise
        # It may have been closed long before, or over this very request.
        return await self._ask(await self._connected(untouched=False))

    async def _ask(self, link: Link) -> Response:
        self._link = link
        self._response = response = Response(link, self._head_only)
        try:
            link.send(*self._request)
            await response.head()
        except BaseException:
            response.forget()
            link.close()
            raise
        return response

    async def _connected(self, *, untouched: bool) -> Link:
        try:
            return await connect(self._endpoint, self._connect_s)
        except TimeoutError as exc:
            raise gone(f"the engine at {self._endpoint} takes no connection", untouched=untouched) from exc
        except OSError as exc:
            words = exc.strerror or str(exc)
            raise gone(f"the engine at {self._endpoint} cannot be reached: {words}", untouched=untouched) from exc

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response, link = self._response, self._link
        response.forget()
        if self._pool is not None and response.over and response.reusable and not link.sending:
            self._pool.give(self._endpoint, link)
        else:
            link.close()


class _Adopted(_Asking):
    """The rest of an answer that somebody else began to take."""

    __slots__ = ()

    async def __aenter__(self) -> Response:
        try:
            await self._response.head()
        except BaseException:
            self._response.forget()
            self._link.close()
            raise
        return self._response


class _Anew(_Asking):
    """A request whose kept connection turned out to be closed."""

    __slots__ = ()

    async def __aenter__(self) -> Response:
        return await self._ask(await self._connected(untouched=False))


class _Failed(AbstractAsyncContextManager[Response]):
    def __init__(self, error: EngineGone) -> None:
        self._error = error

    async def __aenter__(self) -> Response:
        raise self._error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def adopt(endpoint: Endpoint, link: Link, data: bytes, pool: Pool) -> AbstractAsyncContextManager[Response]:
    """As `request`, for one that was sent on `link` and whose answer began with `data`. `link` is ours from now on."""
    asking = _Adopted(endpoint, (b"", b""), False, pool, CONNECT_S)
    asking._link = link
    asking._response = response = Response(link, False)
    response.received(data)
    return asking


def ask(endpoint: Endpoint, request: tuple[bytes, bytes], pool: Pool) -> AbstractAsyncContextManager[Response]:
    """As `request`, with its bytes."""
    return _Asking(endpoint, request, False, pool, CONNECT_S)


def anew(endpoint: Endpoint, request: tuple[bytes, bytes], pool: Pool) -> AbstractAsyncContextManager[Response]:
    """As `request`, for one that a kept connection did not take."""
    return _Anew(endpoint, request, False, pool, CONNECT_S)


def failed(error: EngineGone) -> AbstractAsyncContextManager[Response]:
    """As `request`, for one that is known to have failed."""
    return _Failed(error)


def gone(message: str, *, sent_any: bool = False, untouched: bool = False) -> EngineGone:
    return EngineGone(
        message, hint="try again; `corral logs` tells what happened to it", sent_any=sent_any, untouched=untouched
    )
