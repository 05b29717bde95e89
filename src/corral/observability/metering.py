"""`Metering`: once a second, what requests left is added up and handed on; and when somebody scrapes, it is written.

All of it is off the way of requests: on the event loop, in pieces of half a millisecond, with everything else let
through between them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from corral import clock
from corral.api import EventInfo
from corral.api_live import Live
from corral.config.settings import Settings
from corral.events import EventLog
from corral.gateway.dialects.usage import usage_of
from corral.metrics import engines
from corral.metrics.catalogue import METRICS
from corral.metrics.exposition import Writer
from corral.metrics.fold import Fold, Knows
from corral.metrics.happened import Happened
from corral.metrics.recent import Rate, Written
from corral.metrics.record import Record, Recorder, Take
from corral.metrics.sums import Sums
from corral.observability.engine_metrics import EngineMetrics
from corral.observability.gauges import Gauges, Samples
from corral.observability.live import LiveView
from corral.observability.places import Places
from corral.supervisor.pulse import Pulses
from corral.tasks import unhurried

EVERY_S: Final = 1.0
LAGS: Final = 15
"""How many of the last seconds count for how late the loop woke."""
_RECORDS: Final = 16
_ENTRIES: Final = 64
_WATCHED_S: Final = 150.0
_GZIP_LEVEL: Final = 1
_GZIP: Final = 31
"""The format with its own head and sum, as zlib has it."""


class Metering:
    """The gateway's `MeteringHost`. One event loop. Whoever is in `takers` gets every record once."""

    def __init__(
        self,
        recorder: Recorder,
        pulses: Pulses,
        events: EventLog,
        places: Places,
        settings: Callable[[], Settings],
        key_name: Callable[[str], str],
    ) -> None:
        self._recorder, self._pulses, self._events = recorder, pulses, events
        self._places, self._settings = places, settings
        self.takers: list[Take] = []
        self.sums = Sums()
        self.fold = Fold(Knows(self._knows, key_name, usage_of), self.sums)
        self._happened = Happened(self.fold.model, self.sums)
        self._gauges: Gauges | None = None
        self._live: LiveView | None = None
        self._engines: EngineMetrics | None = None
        self._writers = {each: Writer(openmetrics=each) for each in (False, True)}
        self._folding = asyncio.Lock()
        self._seen = events.last_seq
        self._written, self._requests, self._ended = Written(), Rate(), 0
        self._lags: list[float] = []
        self._scraped_at = float("-inf")

    def show(self, gauges: Gauges, live: LiveView, engines: EngineMetrics) -> None:
        """What else is told from now on."""
        self._gauges, self._live, self._engines = gauges, live, engines

    def engine_failed(self, unit: str) -> None:
        """An engine did not tell its own metrics."""
        self.sums.count("corral_engine_scrape_errors_total", (self.fold.model(unit),))

    async def run(self) -> None:
        """Adds up every second, for ever: a task of the daemon's."""
        due = before = clock.monotonic()
        self._places.refresh()  # so that the first scrape has them
        while True:
            due = max(due + EVERY_S, clock.monotonic())
            await asyncio.sleep(due - clock.monotonic())
            now = clock.monotonic()
            self._lags = [*self._lags[1 - LAGS :], max(0.0, now - due)]
            await self.add_up()
            self._second(now - before)
            before = now
            if self._engines is not None:
                self._engines.tick()
            if self._gauges is not None:
                self._gauges.watch_downloads()
            if now - self._scraped_at < _WATCHED_S:
                self._places.refresh()

    async def add_up(self) -> None:
        """Takes up what requests left since the last time, and what happened."""
        async with self._folding:
            records = self._recorder.drain()
            entries, self._seen = self._events.since(self._seen), self._events.last_seq
            await unhurried(self._adding(records))
            await unhurried(self._telling(entries))
        for take in self.takers:
            if records:
                take(records)

    def _adding(self, records: Sequence[Record]) -> Iterator[int]:
        for at in range(0, len(records), _RECORDS):
            self.fold.take(records[at : at + _RECORDS])
            yield at

    def _telling(self, entries: Sequence[EventInfo]) -> Iterator[int]:
        for at in range(0, len(entries), _ENTRIES):
            self._happened.take(entries[at : at + _ENTRIES])
            yield at

    def _second(self, seconds: float) -> None:
        """One more second is over: what came in it makes the rates."""
        fold, seconds = self.fold, max(seconds, 0.001)
        wrote = self._written.since(self._pulses.streamed())
        whole, fold.whole_tokens = fold.whole_tokens, {}
        for unit in {*wrote, *whole, *fold.by_unit}:
            fold.of_unit(unit).tokens.add((wrote.get(unit, 0) + whole.get(unit, 0)) / seconds)
        fold.all.tokens.add((sum(wrote.values()) + sum(whole.values())) / seconds)
        self._requests.add((fold.ended - self._ended) / seconds)
        self._ended = fold.ended

    # What is asked.

    def live(self) -> Live:
        assert self._live is not None
        return self._live.now(self._requests)

    async def scrape(self, *, openmetrics: bool, packed: bool) -> tuple[str, bytes]:
        """What the text is, and the text, compressed with gzip where `packed`."""
        self._scraped_at = clock.monotonic()
        self._places.refresh()
        if self._engines is not None:
            await self._engines.scraped()
        await self.add_up()
        writer = self._writers[openmetrics]
        pieces = (piece.encode() for piece in self._text(writer))
        return writer.kind, b"".join(await unhurried(_packed(pieces) if packed else pieces))

    def _text(self, writer: Writer) -> Iterator[str]:
        for name in self._settings().models:
            self.fold.begin(name)
        found = self._now()
        yield ""
        for metric in METRICS:
            if metric.kind == "histogram":
                yield from writer.histograms(metric, self.sums.histograms.get(metric.name, {}))
            else:
                values = found.get(metric.name)
                yield from writer.samples(metric, self.sums.counters.get(metric.name, {}) if values is None else values)
        if self._engines is not None:
            yield from engines.write(self._engines.latest(), openmetrics=writer.openmetrics)
        yield writer.end()

    def _now(self) -> Samples:
        now = clock.monotonic()

        def fill(unit: str) -> int | None:
            recent = self.fold.by_unit.get(unit)
            return None if recent is None else recent.fill(now)

        found: Samples = {} if self._gauges is None else self._gauges.now(self.fold.key, fill)
        found["corral_loop_lag_seconds"] = {(): round(max(self._lags, default=0.0), 6)}
        found["corral_records_lost_total"] = {(): self._recorder.lost}
        return found

    def _knows(self, model: str) -> bool:
        return model in self._settings().models


def _packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()
