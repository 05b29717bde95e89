"""`Record`: one request as it went, and `Recorder`, where the gateway leaves it. Pure.

Appending one is all that a request pays for being counted: what its last bytes say, which histogram its times fall
into, and whether its model is known are found out later, by whoever drains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

MOST: Final = 100_000
"""Records kept until they are drained; beyond, they are counted as lost."""
TAIL_BYTES: Final = 2048
"""Of an answer's end, as much is kept: what an engine counted stands there."""

CLIENT_LEFT: Final = 499
"""The status of a request whose client left before its answer began, as nginx has it."""


class Record(NamedTuple):
    """One request. Times are seconds on `clock.monotonic`; None where it did not come so far."""

    began: float  # its head was there
    ended: float  # its last byte was sent, or it was given up
    granted: float | None  # it got its first lease
    first: float | None  # the first byte of its answer was sent
    model: str  # as configured or stored; empty where none was found
    unit: str  # the engine that ended it; empty where none had it
    dialect: str  # "openai" …
    route: str  # the route's path as the table has it, so that it is one of a few
    status: int  # as sent
    outcome: str  # empty: answered to its end; "left": its client went; else the code of the error it ended with
    key: str  # the id of the key; empty where none was needed
    stream: bool
    chunks: int  # pieces of the answer that came
    end: bytes  # the last bytes of the engine's answer, where its counts are
    retries: int = 0  # engines that died over it before its answer began
    resumes: int = 0  # times its stream went on with another engine
    request_id: bytes = b""
    trace: bytes = b""  # the client's `traceparent`, as it came
    lost: tuple[str, ...] = ()  # why each engine was lost: those of the retries, then those of the resumes


class Recorder:
    """Where records wait. One event loop."""

    __slots__ = ("_kept", "lost")

    def __init__(self) -> None:
        self._kept: list[Record] = []
        self.lost = 0  # could not be kept: nobody drained

    def add(self, record: Record) -> None:
        if len(self._kept) < MOST:
            self._kept.append(record)
        else:
            self.lost += 1

    def drain(self) -> list[Record]:
        """What came since the last time, oldest first."""
        kept, self._kept = self._kept, []
        return kept


Take = Callable[[list[Record]], None]
"""Whoever wants records: the sums, the traces, the request log. It must neither block nor raise."""
