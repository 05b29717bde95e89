"""One HTTP request to an engine, on a connection of its own.

Connections are not kept: llama.cpp closes one after each streamed answer although it says it keeps it alive, and on a
unix socket a new one costs some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import httptools

from corral import clock
from corral.engines.plan import Endpoint
from corral.errors import EngineError, EngineGone

HIGH_BYTES = 256 << 10
LOW_BYTES = 64 << 10
"""Above the first the engine is no longer read, below the second it is again: a slow client slows the engine."""

MAX_HEAD_BYTES = 256 << 10
CONNECT_S = 10.0
_BODILESS = (204, 304)


class Response(asyncio.Protocol):
    """An engine's answer while it arrives; also the protocol that receives it."""

    def __init__(self, head_only: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._head_only = head_only
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._have_head = False
        self._delimited = False  # by a length or by chunks; else the end of the connection is the end of the body
        self._paused = False
        self._done = False
        self._error: EngineError | None = None

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
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def content_length(self) -> int | None:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
        return None

    @property
    def buffered_bytes(self) -> int:
        """Received and not yet read."""
        return self._size

    async def _head(self) -> None:
        while not self._have_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._done or self._error is not None:
            return
        if not self._have_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._error = EngineError(f"the engine's answer is no HTTP: {exc}", hint="see its log")
        if not self._have_head and self._head_bytes > MAX_HEAD_BYTES and self._error is None:
            self._error = EngineError("the engine's answer has too large a head", hint="see its log")
        if self._size > HIGH_BYTES and not self._paused and not self._done and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done and self._error is None:
            if self._have_head and not self._delimited and exc is None:
                self._done = True
            else:
                self._error = gone(
                    "the engine's connection ended before its answer did"
                    if self._have_head
                    else "the engine closed the connection without an answer",
                    sent_any=self._have_head,
                )
        self._transport = None
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.headers = []
        self._delimited = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._delimited = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._have_head = True
            if self._head_only or self.status in _BODILESS:
                self._done = True

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self._done = True


@asynccontextmanager
async def request(
    endpoint: Endpoint,
    method: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes = b"",
    *,
    connect_s: float = CONNECT_S,
) -> AsyncIterator[Response]:
    """Sends a request and gives the answer once its head is there; leaving the block closes the connection.

    `headers` go out as they are, with host, connection and length added.

    Raises EngineGone; its `untouched` detail is true when the engine saw nothing of the request, its `sent_any` when
    a part of the answer had come. EngineError when the answer is no HTTP.
    """
    response = Response(method == "HEAD")
    transport = await _connect(endpoint, response, connect_s)
    try:
        lines = [method.encode("ascii"), b" ", target, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(b"content-length: %d\r\n" % len(body))
        lines.append(b"\r\n")
        transport.writelines((b"".join(lines), body)) if body else transport.write(b"".join(lines))
        await response._head()
        yield response
    finally:
        transport.abort()


def gone(message: str, *, sent_any: bool = False, untouched: bool = False) -> EngineGone:
    return EngineGone(
        message, hint="try again; `corral logs` tells what happened to it", sent_any=sent_any, untouched=untouched
    )


async def _connect(endpoint: Endpoint, response: Response, connect_s: float) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    try:
        if endpoint.socket is None:
            async with asyncio.timeout(connect_s):
                transport, _ = await loop.create_connection(lambda: response, endpoint.host, endpoint.port)
                return transport
        sock = await _connected(str(endpoint.socket), connect_s)
        try:
            transport, _ = await loop.create_unix_connection(lambda: response, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transport
    except TimeoutError as exc:
        raise gone(f"the engine at {endpoint} takes no connection", untouched=True) from exc
    except OSError as exc:
        words = exc.strerror or str(exc)
        raise gone(f"the engine at {endpoint} cannot be reached: {words}", untouched=True) from exc


async def _connected(path: str, connect_s: float) -> socket.socket:
    """A connected, non-blocking unix socket. Such a connect ends at once, one way or the other."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = clock.monotonic() + connect_s
    pause_s = 0.0005
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                return sock
            except OSError as exc:
                # llama.cpp listens with a backlog of five: in a burst, the rest has to knock again.
                if exc.errno != errno.EAGAIN:
                    raise
            if clock.monotonic() > deadline:
                raise TimeoutError
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
