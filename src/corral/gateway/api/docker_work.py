"""A piece of work of the store while its client is told how far it is, in Docker's lines."""

from __future__ import annotations

from corral.errors import CorralError
from corral.gateway.dialects.docker.errors import text
from corral.gateway.dialects.docker.lines import ESCAPED, PLAIN, Line, Mode, wants_plain, written
from corral.gateway.exchange import Exchange

_EVERY_S = 0.1
"""Progress is told so often at most."""


class Lines:
    """The stream of lines of one exchange. It begins with the first of them, so that an early error is a status."""

    def __init__(self, exchange: Exchange, mode: Mode) -> None:
        self._exchange, self._mode = exchange, mode
        self._plain = wants_plain(exchange.header(b"accept"))

    async def say(self, lines: list[Line]) -> None:
        if not lines:
            return
        if not self._exchange.started:
            head = [(b"content-type", PLAIN if self._plain else ESCAPED), (b"x-accel-buffering", b"no")]
            await self._exchange.start(200, head, events=True)
        await self._exchange.write(written(lines, plain=self._plain))

    async def end(self, last: list[Line]) -> None:
        await self.say(last)
        await self._exchange.end()

    async def fail(self, error: CorralError) -> None:
        """Raises `error` while it can still be the answer's status."""
        if not self._exchange.started:
            raise error
        line = {"type": "error", "message": text(error), "total": 0, "layer": {"size": 0, "current": 0}}
        await self.end([{**line, "mode": self._mode}])
