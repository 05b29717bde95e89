"""`Recorder`: the last requests as they came, for who looks for a fault. Off until somebody asks for it.

It keeps a bounded number of them, in memory only. Fields that may hold a secret are masked, and bodies are kept only
when that is asked for too.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import field
from typing import Final, Protocol

from corral import clock
from corral.lazy_dataclass import dataclass

KEPT: Final = 200
BODY_BYTES: Final = 16 << 10
MASK: Final = "********"
_SECRET = re.compile(r"auth|key|token|secret|passw|credential|cookie|session", re.IGNORECASE)
_OURS = re.compile(r"(ck_[a-z0-9]{10}_)[A-Za-z0-9]+")


class Recordable(Protocol):
    """What is looked at of an exchange."""

    method: str
    path: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    peer: str
    started: bool

    @property
    def status(self) -> int:
        """Of the answer, once it has begun."""
        ...

    def ending(self) -> asyncio.Future[None]: ...


@dataclass(slots=True)
class Record:
    """One request."""

    number: int
    at_wall_s: float
    method: str
    target: str
    peer: str
    headers: list[list[str]]
    caller: str = ""
    model: str = ""
    status: int = 0
    took_ms: float | None = None  # None while it runs
    body: str | None = None
    body_bytes: int = 0
    began: float = field(default_factory=clock.monotonic)


class Recorder:
    """The last requests."""

    def __init__(self) -> None:
        self.on = False
        self.bodies = False
        self._records: deque[Record] = deque(maxlen=KEPT)
        self._running: dict[asyncio.Future[None], Record] = {}
        self._count = 0

    def turn(self, *, on: bool, bodies: bool = False) -> None:
        """Begins or ends recording; what was recorded is forgotten when it ends."""
        self.on, self.bodies = on, on and bodies
        if not on:
            self._records.clear()

    @property
    def records(self) -> list[Record]:
        """Oldest first."""
        return list(self._records)

    def begin(self, exchange: Recordable) -> Record:
        """Keeps a request that has come."""
        self._count += 1
        query = f"?{masked_query(exchange.query.decode('latin-1'))}" if exchange.query else ""
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in exchange.headers]
        headers = [[name, MASK if _SECRET.search(name) else _plain(value)] for name, value in headers]
        record = Record(
            self._count, clock.wall(), exchange.method, _plain(exchange.path) + query, exchange.peer, headers
        )
        self._records.append(record)
        end = exchange.ending()
        self._running[end] = record

        def ended(_: asyncio.Future[None]) -> None:
            self._running.pop(end, None)
            record.status = exchange.status or (200 if exchange.started else 0)  # the fast path knows no other
            record.took_ms = (clock.monotonic() - record.began) * 1000

        end.add_done_callback(ended)
        return record

    def models(self, exchange: Recordable, model: str, body: bytes) -> None:
        """Says which model it is for, and what it asks."""
        if (record := self._running.get(exchange.ending())) is not None:
            record.model, record.body_bytes = model, len(body)
            if self.bodies:
                record.body = _plain(body[:BODY_BYTES].decode("utf-8", "replace"))


def masked_query(query: str) -> str:
    """A query with the values masked that may be secrets."""
    pairs = []
    for pair in query.split("&"):
        name, sep, _ = pair.partition("=")
        pairs.append(f"{name}={MASK}" if sep and _SECRET.search(name) else _plain(pair))
    return "&".join(pairs)


def _plain(text: str) -> str:
    """Without secrets of ours, wherever they stand."""
    return _OURS.sub(rf"\1{MASK}", text)
