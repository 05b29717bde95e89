"""`WithoutTask`: a request on the fast path, what is kept of it, and how it gets a task after all."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from corral import clock
from corral.gateway.gate import Ticket
from corral.gateway.http.head import Head
from corral.gateway.path import upstream
from corral.gateway.path.begun import Begun
from corral.gateway.path.fast import Plan
from corral.gateway.path.fast_heads import Answer
from corral.gateway.path.fast_stream import FastStream
from corral.gateway.path.link import Link
from corral.gateway.request_ids import new_request_id
from corral.gateway.wire import Link as Client
from corral.gateway.wire import WireExchange, Work
from corral.metrics.record import CLIENT_LEFT, TAIL_BYTES, Record
from corral.scheduler.lease import Held
from corral.supervisor.pulse import Pulse

_new = tuple.__new__


class WithoutTask(WireExchange, Pulse):
    """One request on one connection, which is its own pulse. It has no task as long as it is on the fast path."""

    # What is set for each request, also of what it inherits: in a slot that costs a tenth of what it does elsewhere.
    __slots__ = (
        "_answer", "_body", "_chunked", "_engine", "_filled", "_got", "_head_read", "_held", "_hides", "_kept", "_key",
        "_link", "_missing", "_model", "_pieces", "_plan", "_request_id", "_streaming", "_ticket", "began", "caller",
        "ended", "entered", "events", "first", "gone", "granted", "path", "started", "task", "watched",
    )  # fmt: skip
    method = "POST"
    whole = True
    _pieces: list[bytes]

    def __init__(self, link: Client, head: Head, plan: Plan) -> None:
        self.began = clock.monotonic()
        self._link, self._head_read, self._plan = link, head, plan
        self.task = self.watched = self.caller = None
        self.ended = self.started = self.entered = self.events = self.gone = self._chunked = self._filled = False
        self._held: Held | None = None  # while an engine works for it, and so are the next two
        self._engine: Link | None = None
        self._ticket: Ticket | None = None
        self._answer: Answer | None = None
        self._streaming: FastStream | None = None  # once a stream has begun to go out
        self._body = self._got = b""  # the latter: of the answer, as long as nothing was made of it
        self._request_id = plan.request_id
        self._model = self._key = ""  # once it is known, and what a pulse has with it
        self.granted: float | None = None  # as the next, for the record of it
        self.first: float | None = None
        self._kept = False  # the engine's connection had a request before
        self._hides = False  # the engine was asked for its count, and the client did not ask
        self._missing = self.chunks = 0  # the former: of a plain answer
        self.judged = True
        self.held = self.answered = False

    def fill(self, length: int) -> None:
        """Makes it an exchange like any other: whoever has the whole body in hand mostly needs nothing of that."""
        if not self._filled:
            self._filled = True
            WireExchange.__init__(self, self._link, self._head_read, length)
            self.course.began = self.began
            self.extra = [(b"x-request-id", self._id())]
            self.dialect = self._plan.route.dialect

    def _id(self) -> bytes:
        found = self._request_id = self._request_id or new_request_id()
        return found

    def _request(self) -> tuple[bytes, bytes]:
        body = self._body
        words = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        return words % (self._plan.request_lines, self._request_id or self._id(), len(body)), body

    def _record(self, outcome: str, end: bytes, now: float) -> None:
        """Leaves word of it, once it is over; what goes on in a task is told of when that ends."""
        plan = self._plan
        if (recorder := plan.means.recorder) is None or not plan.counted:
            return
        first, granted = self.first, self.granted
        status = CLIENT_LEFT if first is None or self._answer is None else self._answer.status
        unit, stream = (self.unit, self.stream) if granted is not None else ("", False)
        # As it is made by its name, only faster.
        record: Record = _new(
            Record,
            (self.began, now, granted, first, self._model, unit, plan.dialect, plan.named, status, outcome, self._key,
             stream, self.chunks, end[-TAIL_BYTES:], 0, 0, self._request_id, plan.trace, ()),
        )  # fmt: skip
        recorder.add(record)

    # What goes on in a task.

    def _run(self, work: Work | None = None) -> None:
        self.fill(len(self._body))
        course = self.course
        course.route, course.model, course.first = self._plan.route, self._model, self.first
        if self._model:
            course.stream = self.stream
        if self.granted is not None:
            course.granted, course.unit = self.granted, self.unit
        if self.begun is None:
            course.chunks = self.chunks  # else whoever goes on counts them
        if self.first is not None and self._answer is not None:
            self.status = self._answer.status
        if not self._parts:
            self.feed(self._body)
        self._link.run(self, work)

    def _later(self, engine: Link) -> None:
        """It has to wait before it may be sent."""
        assert self._held is not None
        endpoint, pool = self._held.lease.endpoint, self._plan.means.pool
        pool.give(endpoint, engine)
        self._go_on(upstream.ask(endpoint, self._request(), pool))

    def _adopt(self, data: bytes) -> None:
        """The answer is not plain."""
        engine, held = self._engine, self._held
        assert engine is not None and held is not None
        self._go_on(upstream.adopt(held.lease.endpoint, engine, data, self._plan.means.pool), engine)

    def _go_on(self, asking: AbstractAsyncContextManager[upstream.Response], engine: Link | None = None) -> None:
        held, ticket, streaming = self._held, self._ticket, self._streaming
        assert held is not None
        sent = streaming.told() if streaming is not None else None
        self.begun = Begun(
            self._model, self._plan.target, self._body, self.stream, held, self, ticket, asking, engine, sent,
            self._hides,
        )  # fmt: skip
        self._held = self._engine = self._ticket = self._streaming = None
        self._got = b""
        self._run(self._plan.fast.app.go_on)

    def dropped(self) -> None:
        """The task has ended."""
        if (begun := self.begun) is not None:  # before it began
            self.begun = None
            self.course.chunks = self.chunks
            begun.drop(self._plan.means.pulses)
