"""Many requests at a time from one process: plain protocols that send fixed bytes and count what comes back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench.wire import Address, Refused

PATIENCE_S = 60.0


@dataclass
class Load:
    """What came of it."""

    took_s: float = 0.0
    answers: int = 0
    events: int = 0
    gaps_s: list[float] = field(default_factory=list)  # between two events of one stream


class Client(asyncio.Protocol):
    """Sends `request` again and again on one connection, `left` times."""

    def __init__(self, request: bytes, left: int, load: Load) -> None:
        self._request, self._left, self._load = request, left, load
        self._tail = b""
        self._at = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(Refused(f"the connection was lost: {exc}, {self._tail!r}"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if events := data.count(b"data: {"):
            self._load.events += events
            if self._at:
                self._load.gaps_s.append(now - self._at)
            self._at = now
        self._tail = (self._tail + data)[-1000:]
        if not _whole(self._tail):
            return
        self._load.answers += 1
        self._left -= 1
        self._tail, self._at = b"", 0.0
        if self._left:
            self._transport.write(self._request)
        else:
            self.ended.set_result(None)
            self._transport.close()


def _whole(seen: bytes) -> bool:
    # Of the fixed engine's two answers: the end of its JSON, and the last chunk.
    return seen.endswith((b'"total_tokens":2}}', b"0\r\n\r\n"))


def run(address: Address, request: bytes, connections: int, each: int) -> Load:
    """`connections` at once, each asking `each` times over. Raises Refused when one is lost, TimeoutError."""
    return uvloop.run(_run(address, request, connections, each))


async def _run(address: Address, request: bytes, connections: int, each: int) -> Load:
    loop = asyncio.get_running_loop()
    load = Load()
    clients = [Client(request, each, load) for _ in range(connections)]
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        for client in clients:
            if isinstance(address, Path):
                await loop.create_unix_connection(lambda client=client: client, str(address))  # type: ignore[misc]
            else:
                await loop.create_connection(lambda client=client: client, *address)  # type: ignore[misc]
        await asyncio.gather(*(client.ended for client in clients))
    load.took_s = time.perf_counter() - began
    return load
