"""The detector's HTTP side: connections, requests one after another on each, and the end of it all."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any, Final, cast

import httptools

from corral.errors import CallerError, CorralError, TooLarge
from corral.lazy_dataclass import dataclass

_MOST_HEAD_BYTES: Final = 64 << 10
_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
    415: "Unsupported Media Type", 500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip


@dataclass(slots=True)
class Request:
    """A whole request. `body` is empty and `refused` says why where it was too large."""

    method: str = ""
    path: str = ""
    query: str = ""
    fields: dict[str, str] = field(default_factory=dict)  # names in lower case; of several alike the last
    body: bytes = b""
    keep: bool = True
    refused: CorralError | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    kind: str = "application/json"


Handle = Callable[[Request], Awaitable[Answer]]


def of_json(data: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(data).encode())


def of_error(exc: CorralError) -> Answer:
    """In OpenAI's shape, as the gateway tells its own errors."""
    kind = "invalid_request_error" if exc.fault == "caller" and exc.status < 500 else "server_error"
    inner = {
        "message": exc.message,
        "type": kind,
        "param": exc.details.get("param"),
        "code": exc.code,
        "hint": exc.hint,
    }
    return of_json({"error": inner}, exc.status)


class Server:
    """Answers by `handle` on whatever sockets it is given to: `connection` makes what one connection needs.

    `coming` is told when a body begins to come (+1), and when its request is whole or lost (-1).
    """

    def __init__(self, handle: Handle, most_body: int, coming: Callable[[int], None]) -> None:
        self.handle, self.most_body, self.coming = handle, most_body, coming
        self.connections: set[Connection] = set()
        self.ending = False

    def connection(self) -> Connection:
        return Connection(self)

    async def drain(self) -> None:
        """Lets running requests end, and closes every connection. New ones are the caller's affair."""
        self.ending = True
        for each in list(self.connections):
            each.close_when_idle()
        while self.connections:
            await asyncio.wait([each.gone for each in self.connections])


class Connection(asyncio.Protocol):
    """One connection. While a request is answered no more is read than what has come already."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._head_bytes = 0
        self._body = bytearray()
        self._coming = False
        self._whole: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by its class
        self._server.connections.add(self)
        if self._server.ending:
            transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()
        except (httptools.HttpParserError, CallerError) as exc:
            error = exc if isinstance(exc, CallerError) else CallerError(f"this is no HTTP request: {exc}"[:200])
            self._send(of_error(error), keep=False)
            self._transport.close()

    def eof_received(self) -> bool:
        return self._task is not None  # who half-closes after a request still hears the answer

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._count(coming=False)
        self._drained.set()
        self._server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
        if not self.gone.done():
            self.gone.set_result(None)

    # The parser's side.

    def on_message_begin(self) -> None:
        self._request, self._body, self._head_bytes = Request(), bytearray(), 0

    def on_url(self, url: bytes) -> None:
        path, _, query = url.decode("latin-1").partition("?")
        self._request.path += path
        self._request.query += query
        self._head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head(len(name) + len(value))
        self._request.fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._request.method = self._parser.get_method().decode("latin-1")
        length = self._request.fields.get("content-length", "0")
        if length.isdecimal() and int(length) > self._server.most_body:
            self._refuse()
        elif self._request.fields.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._count(coming=self._request.method == "POST")

    def on_body(self, body: bytes) -> None:
        if self._request.refused is not None:
            return
        if len(self._body) + len(body) > self._server.most_body:
            self._refuse()
            return
        self._body += body

    def on_message_complete(self) -> None:
        self._request.body, self._body = bytes(self._body), bytearray()
        self._request.keep = self._parser.should_keep_alive() and self._request.refused is None
        self._whole.append(self._request)
        if self._task is None:
            self._transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._answer(), name="request")

    # Ours.

    def close_when_idle(self) -> None:
        """Ends after the request that is being answered; at once where there is none."""
        if self._task is None:
            self._transport.close()

    def _head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MOST_HEAD_BYTES:
            raise CallerError("the request's head is too large", hint="send fewer header fields")

    def _refuse(self) -> None:
        self._body = bytearray()
        bound = f"{self._server.most_body} bytes"
        self._request.refused = TooLarge(f"the body is larger than {bound}", hint="send fewer pictures at once")

    def _count(self, *, coming: bool) -> None:
        if coming != self._coming:
            self._coming = coming
            self._server.coming(1 if coming else -1)

    async def _answer(self) -> None:
        try:
            while self._whole:
                request = self._whole.popleft()
                self._count(coming=False)  # from here on whoever handles it counts
                answer = of_error(request.refused) if request.refused else await self._server.handle(request)
                keep = request.keep and not self._server.ending
                self._send(answer, keep=keep)
                await self._drained.wait()
                if not keep:
                    self._transport.close()
                    return
        finally:
            self._task = None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _send(self, answer: Answer, *, keep: bool) -> None:
        head = (
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}\r\n"
            f"content-type: {answer.kind}\r\ncontent-length: {len(answer.body)}\r\n"
            f"connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + answer.body)
