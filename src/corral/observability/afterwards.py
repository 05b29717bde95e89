"""`Afterwards`: what is done with requests once they have ended, beside being counted: the request log, and traces."""

from __future__ import annotations

from collections.abc import Callable

from corral.config.paths import Paths
from corral.config.settings import Settings
from corral.events import EventLog
from corral.metrics.record import Record
from corral.observability import traces
from corral.observability.metering import Metering
from corral.observability.request_log import RequestLog, chosen
from corral.serve_options import ServeOptions


class Afterwards:
    """Takes records from `metering`. One event loop. Close it."""

    def __init__(
        self,
        metering: Metering,
        options: ServeOptions,
        paths: Paths,
        settings: Callable[[], Settings],
        events: EventLog,
        write: Callable[[str], None],
        key_name: Callable[[str], str],
    ) -> None:
        self._metering = metering
        self.requests = RequestLog(paths, lambda: chosen(options, settings()), write, key_name, metering.add_up)
        self._traces: traces.Traces | None = None
        if (given := traces.wanted(settings())) is not None:
            if traces.installed():
                self._traces = traces.Traces(given, events, settings().listen, key_name)
            else:  # a configuration that names them was refused before
                text = f"OpenTelemetry's variables name an endpoint, but it is not installed: {traces.INSTALL}"
                events.post("traces.failing", text)
        metering.takers.append(self._take)

    async def run(self) -> None:
        """Writes the request log, for ever: a task of the daemon's."""
        await self.requests.run()

    async def aclose(self) -> None:
        """Takes what requests left to the very end; bounded."""
        await self._metering.add_up()
        await self.requests.flush()
        if self._traces is not None:
            await self._traces.aclose()

    def _take(self, records: list[Record]) -> None:
        self.requests.take(records)
        if self._traces is not None:
            self._traces.take(records)
