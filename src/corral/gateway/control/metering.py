"""The routes that show how the server does: its metrics, and everything at this moment."""

from __future__ import annotations

from typing import Protocol

from corral.api_live import Live
from corral.errors import CallerError
from corral.gateway.answer import send_json
from corral.gateway.exchange import Exchange
from corral.gateway.routes import Doc, Match, Route, query


class MeteringHost(Protocol):
    """The daemon as these routes see it."""

    def live(self) -> Live: ...

    async def scrape(self, *, openmetrics: bool, packed: bool) -> tuple[str, bytes]:
        """The media type of what is told, and the text, compressed with gzip where `packed`."""
        ...


_METRICS = Doc(
    "The metrics of the server and of its engines",
    str,
    text="Prometheus' text format 0.0.4, or OpenMetrics 1.0 where the Accept field names that; compressed with gzip "
    "where that is accepted. Needs a key with the scope metrics where keys are needed. At /control/metrics also on "
    "listeners where another dialect has /metrics.",
    media=("text/plain", "application/openmetrics-text"),
    errors=(CallerError,),
)


class MeteringControl:
    """Their handlers."""

    def __init__(self, host: MeteringHost) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/metrics", self._metrics, _METRICS, scope="metrics"),
            Route("GET", "/control/metrics", self._metrics, _METRICS, scope="metrics"),
            Route(
                "GET", "/control/live", self._live,
                Doc("Everything at this moment: rates, devices, units, downloads, the last events", Live,
                    errors=(CallerError,)),
            ),
        ]  # fmt: skip

    async def _metrics(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        packed = accepts(exchange.header(b"accept-encoding") or b"", b"gzip")
        openmetrics = accepts(exchange.header(b"accept") or b"", b"application/openmetrics-text")
        kind, text = await self._host.scrape(openmetrics=openmetrics, packed=packed)
        head = [(b"content-type", kind.encode()), (b"vary", b"accept, accept-encoding")]
        if packed:
            head.append((b"content-encoding", b"gzip"))
        await exchange.respond(200, head, text)

    async def _live(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, self._host.live())


def accepts(field: bytes, wanted: bytes) -> bool:
    """Whether a list of what a client takes names `wanted`, and does not say that it is unwanted."""
    for entry in field.lower().split(b","):
        name, *parameters = (part.strip() for part in entry.split(b";"))
        if name == wanted:
            return not any(part[:2] == b"q=" and not part[2:].strip(b"0.") for part in parameters)
    return False
