"""`Connection`: uvicorn's HTTP/1.1 protocol, taught to tell its exchange when the client leaves."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from corral.errors import CallerError
from corral.gateway.answer import encode
from corral.gateway.asgi import CONNECTION
from corral.gateway.dialects import openai
from corral.gateway.exchange import Exchange

KEEP_ALIVE_S = 75
"""An idle connection is kept so long: longer than clients usually pool theirs, so that they close first."""


class Connections(ServerState):
    """The connections of one listener, with the fields that every answer of theirs carries."""

    def __init__(self) -> None:
        self._second = 0
        self._fields: list[tuple[bytes, bytes]] = []
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._fields = [(b"date", formatdate(second, usegmt=True).encode()), (b"server", b"corral")]
        return self._fields

    @default_headers.setter
    def default_headers(self, value: list[tuple[bytes, bytes]]) -> None:
        """uvicorn sets it empty when it begins; ours are made when they are asked for."""


def config(app: Any) -> Config:
    """uvicorn's settings for `app`; nothing in them touches logging, signals or the event loop."""
    made = Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    made.load()
    return made


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, config: Config, connections: Connections) -> None:
        super().__init__(config, connections, {}, asyncio.get_running_loop())
        self.exchange: Exchange | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.exchange is not None:
            self.exchange.client_left()
            self.exchange = None

    def keep_reading(self) -> None:
        self.flow.resume_reading()

    def break_off(self) -> None:
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What was received is no HTTP. In the middle of an answer there is nothing to be said but goodbye."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        error = CallerError("the request is no valid HTTP/1.1", hint="is this a plain HTTP client?")
        body = encode(openai.error(error))
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nserver: corral\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: the request is answered as if nobody had asked for another protocol."""
