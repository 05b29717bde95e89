"""`Exchange`: one request and the way back to its client, whatever HTTP server read it.

The rest of the gateway sees nothing else of a connection, so that the server in front can be replaced.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence

from corral.errors import CorralError
from corral.gateway.headers import Fields, first

Body = bytes | bytearray | memoryview


class ClientLeft(Exception):
    """The client closed its connection before it had its answer. Nobody is there to be told."""


class Exchange(abc.ABC):
    """One request. It is made by the server's adapter in the task that answers it.

    The answer is `respond`, or `start`, any number of `write`, and `end`. `write` waits while the client is slow.
    When the client leaves, the task is cancelled and `gone` is true.
    """

    method: str
    path: str  # percent-decoded
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]  # names in lower case

    def __init__(self) -> None:
        self.task: asyncio.Task[object] | None = asyncio.current_task()
        self.listener_default: str | None = None  # the model of the listener's own
        self.extra: Fields = []  # go out with whatever is answered
        self.started = False
        self.ended = False
        self.events = False  # the answer that was started is an event stream
        self.endless = False  # the answer ends only when somebody ends it
        self.gone = False
        self.interruption: CorralError | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field `name` (in lower case)."""
        return first(self.headers, name)

    @abc.abstractmethod
    async def body(self, limit: int) -> bytes:
        """The whole request body. Raises TooLarge beyond `limit` bytes, ClientLeft. Call it once, before answering."""

    @abc.abstractmethod
    async def _send_head(self, status: int, headers: Fields) -> None: ...

    @abc.abstractmethod
    async def _send_body(self, chunk: bytes, last: bool) -> None: ...

    @abc.abstractmethod
    def abort(self) -> None:
        """Breaks the connection, so that nobody takes what was sent for the whole."""

    async def start(self, status: int, headers: Fields, *, events: bool = False) -> None:
        """Sends the head. Without a content-length among `headers` the body is sent in chunks."""
        self.started = True
        self.events = events
        await self._send_head(status, headers + self.extra)

    async def write(self, chunk: bytes) -> None:
        await self._send_body(chunk, False)

    async def end(self, chunk: bytes = b"") -> None:
        """Sends the last piece. The exchange is over."""
        self.ended = True
        await self._send_body(chunk, True)

    async def respond(self, status: int, headers: Fields, body: bytes = b"") -> None:
        """A whole answer of known length."""
        if status not in (204, 304):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self.start(status, headers)
        await self.end(body)

    def client_left(self) -> None:
        """The adapter's word that nobody is at the other end any more."""
        if not self.ended and not self.gone:
            self.gone = True
            if self.task is not None:
                self.task.cancel()

    def interrupt(self, error: CorralError) -> None:
        """Ends the answer early, in the way its form allows: an error body, an error event, a cut."""
        if not self.ended and not self.gone and self.interruption is None:
            self.interruption = error
            if self.task is not None:
                self.task.cancel()
