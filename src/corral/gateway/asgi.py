"""`AsgiExchange`: an exchange over ASGI as uvicorn speaks it, on a `Connection` of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from corral.errors import TooLarge
from corral.gateway.exchange import ClientLeft, Exchange
from corral.gateway.headers import Fields
from corral.units import show_bytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CONNECTION = "corral.connection"
"""The key in an ASGI scope under which the `Connection` is."""

_DRAINED_BYTES = 64 << 20
_DRAINED_S = 5.0


class Connection(Protocol):
    """What an exchange needs of the connection below ASGI, which has no words for it."""

    exchange: Exchange | None

    def break_off(self) -> None: ...

    def keep_reading(self) -> None:
        """Reads on even when nobody asks for the body: only so is the client's leaving seen."""
        ...


class AsgiExchange(Exchange):
    """One ASGI http scope with its two callables."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        super().__init__()
        self.method = scope["method"]
        self.path = scope["path"]
        self.raw_path = scope["raw_path"]
        self.query = scope["query_string"]
        self.headers = scope["headers"]
        self._receive = receive
        self._send = send
        self._connection: Connection = scope[CONNECTION]
        self._connection.exchange = self
        self._unread = False

    async def body(self, limit: int) -> bytes:
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > limit:
            self._unread = True
            raise _too_large(limit)
        message = await self._next()
        whole: bytes = message["body"]
        if message["more_body"]:
            parts = [whole]
            size = len(whole)
            while message["more_body"]:
                message = await self._next()
                parts.append(message["body"])
                size += len(message["body"])
                if size > limit:
                    self._unread = message["more_body"]
                    raise _too_large(limit)
            whole = b"".join(parts)
        if len(whole) > limit:
            raise _too_large(limit)
        self._connection.keep_reading()
        return whole

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            self.gone = True
            raise ClientLeft
        return message

    async def _send_head(self, status: int, headers: Fields) -> None:
        if self._unread:
            headers = [*headers, (b"connection", b"close")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _send_body(self, chunk: bytes, last: bool) -> None:
        if last and self._unread and self.header(b"expect") is None:
            # A client that still sends would be cut off before it reads why: its rest is taken in first, within bounds.
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = b""
            await self._drain()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})

    async def _drain(self) -> None:
        drained = 0
        try:
            async with asyncio.timeout(_DRAINED_S):
                while drained < _DRAINED_BYTES:
                    message = await self._next()
                    drained += len(message["body"])
                    if not message["more_body"]:
                        return
        except (TimeoutError, ClientLeft):
            pass
        self.abort()

    def abort(self) -> None:
        self.ended = True
        self._connection.break_off()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {show_bytes(limit)}", hint="max_body in models.yaml sets the bound", limit_bytes=limit
    )
