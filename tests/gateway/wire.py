"""A client that sees the wire: one connection, HTTP read with h11, no pool, no retry."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11

from corral.config.settings import Listen

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Answer:
    """A whole answer. `broken`: the connection ended before it did."""

    status: int
    headers: dict[str, str]
    body: bytes
    broken: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The data of each event."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = [line[6:] for line in block.splitlines() if line.startswith("data: ")]
            if lines:
                found.append("\n".join(lines))
        return found


class Wire:
    """One connection to Corral."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.informational: list[int] = []

    def head(self, method: str, path: str, headers: dict[str, str], length: int | None) -> None:
        fields = {"host": "localhost", **headers}
        if length is not None:
            fields["content-length"] = str(length)
        self._send(h11.Request(method=method, target=path, headers=list(fields.items())))

    def _send(self, event: Any) -> None:
        data = self.http.send(event)
        if data:
            self.writer.write(data)

    def body(self, data: bytes) -> None:
        self._send(h11.Data(data=data))

    def end(self) -> None:
        self._send(h11.EndOfMessage())

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        with_body = body is not None or method == "POST"
        self.head(method, path, headers or {}, len(raw) if with_body else None)
        if raw:
            self.body(raw)
        self.end()

    async def event(self) -> Any:
        """The next h11 event; ConnectionClosed, or RemoteProtocolError raised, at the end."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(DEADLINE_S):
                self.http.receive_data(await self.reader.read(65536))
        return event

    async def start(self) -> int:
        """Waits for the head of the answer."""
        while not isinstance(event := await self.event(), h11.Response):
            if isinstance(event, h11.InformationalResponse):
                self.informational.append(event.status_code)
                continue
            raise ConnectionError(f"no answer: {event!r}")
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}
        return self.status

    async def piece(self) -> bytes:
        """The next piece of the body; empty at its end. Raises h11.RemoteProtocolError when it is cut."""
        event = await self.event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def rest(self) -> Answer:
        """The rest of the answer, head included."""
        if not self.status:
            await self.start()
        parts = []
        broken = False
        try:
            while piece := await self.piece():
                parts.append(piece)
        except (h11.RemoteProtocolError, ConnectionError):
            broken = True
        return Answer(self.status, self.headers, b"".join(parts), broken)

    def drop(self) -> None:
        """Leaves without a word."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(where: Listen, limit: int = 65536) -> AsyncIterator[Wire]:
    if where.path is not None:
        reader, writer = await asyncio.open_unix_connection(str(where.path), limit=limit)
    else:
        reader, writer = await asyncio.open_connection(where.host, where.port, limit=limit)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(where: Listen, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own, and the whole answer."""
    async with connected(where) as wire:
        wire.request(method, path, body, headers)
        return await wire.rest()


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str) -> None:
    """Polls until `condition` holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)
    raise AssertionError(what)
