"""`Exchange`: one request and the way back to its client, whatever HTTP server read it.

The rest of the gateway sees nothing else of a connection, so that the server in front can be replaced.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from corral import clock
from corral.config.settings import Listen
from corral.errors import CorralError
from corral.gateway.course import Course
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.dialects.openai import OPENAI
from corral.gateway.gate import Caller
from corral.gateway.http.headers import EVENTS, Fields, first

if TYPE_CHECKING:
    from corral.gateway.path.begun import Begun


class ClientLeft(Exception):
    """The client closed its connection before it had its answer. Nobody is there to be told."""


class Exchange(abc.ABC):
    """One request. The server makes it, and a task that answers it.

    The answer is `respond`, or `start`, any number of `write`, and `end`. `write` waits while the client is slow.
    When the client leaves, the task is cancelled and `gone` is true.
    """

    method: str
    path: str  # percent-decoded
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]  # names in lower case

    task: asyncio.Task[None] | None = None
    listener_default: str | None = None  # the model of the listener's own
    where: Listen = Listen("")  # the address that it came to; until the listener says, one for which keys are needed
    local = False  # it came over a unix socket
    inner = False  # a question of ours on behalf of another one
    admitted = False  # a part of one for all of whose parts what they may take was set aside
    peer = ""  # the client's address, where it has one
    dialect: Dialect = OPENAI  # in which errors are told
    caller: Caller | None = None  # who asks, where callers are told apart
    extra: Fields = []  # noqa: RUF012 - go out with whatever is answered; replaced, never changed in place
    status = 0  # of the answer, once it has begun
    started = False
    ended = False
    events = False  # the answer that was started is an event stream
    early = False  # its head is out, and so far nothing but comments: no answer has begun
    endless = False  # the answer ends only when somebody ends it
    piecewise = False  # the body is read by `pieces`; from here on no more of it is taken in than fits the memory
    gone = False
    interruption: CorralError | None = None
    entered = False  # it was let in: the gate has been asked
    begun: Begun | None = None  # what was done for it before its task
    watched: asyncio.Future[None] | None = None  # for who waits for its end
    course: Course  # what is noted of it for its record

    def ending(self) -> asyncio.Future[None]:
        """Done once nothing is done for it any more."""
        if self.watched is None:
            self.watched = asyncio.get_running_loop().create_future()
        return self.watched

    @property
    def answering(self) -> bool:
        """Something of an answer may have gone out: none can begin any more."""
        return self.started and not self.early

    def comment(self, events: bytes) -> None:
        """Sends what is no answer on what will be an event stream; the first time with a head of ours."""
        if not self.started:
            self.early = self.started = self.events = True
            self._begin(200, EVENTS + self.extra)
        self.send(events)

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field `name` (in lower case)."""
        return first(self.headers, name)

    @abc.abstractmethod
    async def body(self, limit: int) -> bytes:
        """The whole request body. Raises TooLarge beyond `limit` bytes, TooSlow, ClientLeft, and CallerError when it is
        no HTTP. Call it once, before answering."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, however long it is; instead of `body`. Raises as that does, but for TooLarge."""
        yield await self.body(1 << 62)

    @abc.abstractmethod
    def _begin(self, status: int, headers: Fields) -> None:
        """Keeps the head: it goes out with what comes first."""

    @abc.abstractmethod
    def send(self, chunk: bytes) -> bool:
        """As `write`, without waiting; False when the client is behind, and `drained` is to be awaited first."""

    @abc.abstractmethod
    def _finish(self, chunk: bytes) -> None: ...

    @abc.abstractmethod
    async def drained(self) -> None:
        """Waits until the client has taken most of what was sent."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Breaks the connection, so that nobody takes what was sent for the whole."""

    async def start(self, status: int, headers: Fields, *, events: bool = False) -> None:
        """Begins the answer; the head goes out with its first piece, or its end.

        Without a content-length among `headers` the body is sent in chunks. After a comment the head is out already.
        """
        if self.early:
            self.early = False
            self.course.first = clock.monotonic()
            return
        self.started = True
        self.events = events
        self._begin(status, headers + self.extra)

    async def write(self, chunk: bytes) -> None:
        if not self.send(chunk):
            await self.drained()

    async def end(self, chunk: bytes = b"") -> None:
        """Sends the last piece. The exchange is over."""
        self._finish(chunk)

    async def respond(self, status: int, headers: Fields, body: bytes = b"") -> None:
        """A whole answer of known length."""
        if status not in (204, 304):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.started = True
        self._begin(status, headers + self.extra)
        self._finish(body)

    def client_left(self) -> None:
        """The server's word that nobody is at the other end any more."""
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


class Gathered(Exchange):
    """A question of ours on behalf of `asker`: its answer is gathered here, and its client has not heard of it."""

    method = "POST"
    inner = True

    def __init__(self, asker: Exchange) -> None:
        self.path, self.raw_path, self.query = asker.path, asker.raw_path, b""
        self.headers = asker.headers
        self.task, self.caller, self.dialect, self.where = asker.task, asker.caller, asker.dialect, asker.where
        self.course = asker.course  # what it took is part of what the asker did
        self.listener_default, self.local, self.peer, self.extra = (
            asker.listener_default,
            asker.local,
            asker.peer,
            asker.extra,
        )
        self.status = 0
        self.answer = b""

    async def body(self, limit: int) -> bytes:
        return b""

    def _begin(self, status: int, headers: Fields) -> None:
        self.status = status

    def send(self, chunk: bytes) -> bool:
        self.answer += chunk
        return True

    def _finish(self, chunk: bytes) -> None:
        self.answer += chunk
        self.ended = True

    async def drained(self) -> None:
        return

    def abort(self) -> None:
        self.ended = True
