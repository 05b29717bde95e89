"""`Course`: what is noted of a request on its way, for the one record that is left of it. Pure but for the clock.

The fast path keeps the same in its own exchange, and makes its record without one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral import clock
from corral.errors import Stopping
from corral.gateway.http.headers import first
from corral.metrics.record import CLIENT_LEFT, TAIL_BYTES, Record

if TYPE_CHECKING:
    from corral.gateway.exchange import Exchange
    from corral.gateway.routes import Route


class Course:
    """Whoever learns something of a request writes it here."""

    __slots__ = (
        "began", "chunks", "end", "first", "granted", "lost", "model", "outcome", "over", "resumes", "retries", "route",
        "stream", "unit",
    )  # fmt: skip

    def __init__(self) -> None:
        self.began = clock.monotonic()  # its head was there
        self.granted: float | None = None  # its first lease
        self.first: float | None = None  # the first byte of its answer
        self.model = self.unit = ""
        self.stream = False
        self.chunks = self.retries = self.resumes = 0
        self.lost: tuple[str, ...] = ()  # why, of each retry and then of each resume
        self.end = b""  # of the engine's answer
        self.outcome = ""  # the code of the error that it ended with
        self.route: Route | None = None
        self.over = False  # its record is there

    def asked(self, model: str, stream: bool) -> None:
        """An engine of `model` is to answer. Of those that one request asks in turn, the last one's counts tell."""
        self.model, self.stream, self.end = model, stream, b""

    def leased(self, unit: str) -> None:
        self.unit = unit
        if self.granted is None:
            self.granted = clock.monotonic()

    def record(self, exchange: Exchange, route: Route) -> Record:
        """How `exchange`, which is over, has gone."""
        status, outcome = exchange.status, self.outcome
        if exchange.gone:
            outcome = "left"
            status = CLIENT_LEFT if self.first is None else status
        elif not status:  # the server ended before it could say anything
            status, outcome = Stopping.status, outcome or Stopping.code
        return Record(
            self.began,
            clock.monotonic(),
            self.granted,
            self.first,
            self.model,
            self.unit,
            route.dialect.name,
            route.path,
            status,
            outcome,
            exchange.caller.owner if exchange.caller is not None else "",
            self.stream,
            self.chunks,
            self.end[-TAIL_BYTES:],
            self.retries,
            self.resumes,
            first(exchange.extra, b"x-request-id") or b"",
            first(exchange.headers, b"traceparent") or b"",
            self.lost,
        )
