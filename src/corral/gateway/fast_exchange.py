"""`FastExchange`: a request on the fast path, from its last byte to the last one of its answer, in callbacks alone.

It keeps what the other way keeps: nothing is sent before the engine's first event or whole answer is there, a slow
client slows the engine, one that leaves frees it, and a stream that breaks ends with an error event.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager

from corral.errors import Bug, CorralError
from corral.gateway import upstream
from corral.gateway.again import Tries
from corral.gateway.begun import Begun
from corral.gateway.count import asking
from corral.gateway.fast import MOST_ADDRESSES, Plan
from corral.gateway.fast_heads import Answer, as_lines
from corral.gateway.fast_stream import FastStream
from corral.gateway.gate import Gate, Ticket
from corral.gateway.head import Head
from corral.gateway.link import Link, connect_now
from corral.gateway.passage import Passage, chunks_without_count
from corral.gateway.peek import glance, peek, splice
from corral.gateway.relay import HELD_BYTES
from corral.gateway.request_ids import new_request_id
from corral.gateway.usage import usage_of
from corral.gateway.wire import Link as Client
from corral.gateway.wire import WireExchange, Work
from corral.scheduler.lease import Held
from corral.supervisor.pulse import Pulse

_FIRST_BYTES = 1 << 20
"""Of an answer whose first event is not whole yet; what comes to more goes on in a task."""

_LAST = b"\r\n"
_CLOSES = b"connection: close\r\n\r\n"

log = logging.getLogger("corral.gateway")


class FastExchange(WireExchange, Pulse):
    """One request on one connection, which is its own pulse. It has no task as long as it is on the fast path."""

    # What is set for each request, also of what it inherits: in a slot that costs a tenth of what it does elsewhere.
    __slots__ = (
        "_answer", "_body", "_chunked", "_engine", "_filled", "_got", "_head_read", "_held", "_hides", "_kept", "_link",
        "_missing", "_model", "_pieces", "_plan", "_request_id", "_streaming", "_ticket", "caller", "ended", "entered",
        "events", "gone", "path", "started", "task", "watched",
    )  # fmt: skip
    method = "POST"
    whole = True
    _pieces: list[bytes]

    def __init__(self, link: Client, head: Head, plan: Plan) -> None:
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
        self._kept = False  # the engine's connection had a request before
        self._hides = False  # the engine was asked for its count, and the client did not ask
        self._missing = self.chunks = 0  # the former: of a plain answer
        self.judged = True
        self.held = self.answered = False

    def fill(self, length: int) -> None:
        """Makes it an exchange like any other: whoever has the whole body in hand mostly needs nothing of that."""
        if not self._filled:
            self._filled = True
            super().__init__(self._link, self._head_read, length)
            self.extra = [(b"x-request-id", self._id())]
            self.dialect = self._plan.route.dialect

    def _id(self) -> bytes:
        found = self._request_id = self._request_id or new_request_id()
        return found

    # The request.

    def arrived(self) -> None:
        if self.task is None:
            self.begin(b"".join(self._parts))

    def begin(self, body: bytes) -> None:
        """The request is whole."""
        self._body = body
        try:
            sent = self._send_up(body)
        except CorralError as error:
            self.failed(error)
        except Exception as error:  # noqa: BLE001 - its client must hear of it
            self.bug(error)
        else:
            if not sent:
                self._run()

    def _send_up(self, body: bytes) -> bool:
        """False when it has to take the other way, and nothing is held. Raises CorralError."""
        plan = self._plan
        fast, means, route = plan.fast, plan.means, plan.route
        gate = means.gate
        if gate is not None:
            self._enter(gate)
        if (seen := glance(body)) is None:
            return False
        named, stream, members = seen
        if (found := fast.resolve(named)) is None or len(body) > fast.most_bytes:
            return False
        if route.plain is not None and not route.plain(found, body, members):
            return False
        model = found.name
        if (held := means.leases.try_lease(model)) is None:
            return False
        lease = held.lease
        if means.conversations is not None and means.conversations.wanted(lease):
            held.give_back()
            return False
        if (engine := means.pool.take(lease.endpoint)) is not None:
            self._kept = True
        elif (engine := connect_now(lease.endpoint)) is None:
            held.give_back()
            return False
        self._held, self._engine, self._model = held, engine, model
        self.unit, self.prompt_bytes, self.stream = lease.unit, len(body), stream
        means.pulses.begins(self)
        if model != named:
            body = splice(body, peek(body), model)
        if gate is not None and (ticket := gate.admit(self, model, body)) is not None:
            self._ticket = ticket
            if ticket.body is not None:
                body = ticket.body
            if stream and model in means.silent and (asked := asking(body)) is not None:
                self._hides, body = True, asked
            if ticket.saved is not None:
                self._body = body
                self._later(engine)
                return True
        self._body = body
        engine.receiver = self
        engine.send(*self._request())
        if not self._kept:
            engine.listen()  # one that waited is listened to already
        return True

    def _enter(self, gate: Gate) -> None:
        plan, peer = self._plan, self._link.peer
        self.path = plan.path
        self.entered = True
        known = plan.callers.get(peer)
        if known is not None and (caller := known[1]) is not None and gate.constant(caller) is known[0]:
            self.caller = caller
            return
        self.fill(len(self._body))
        self.where = plan.fast.app.where
        self.local = self.where.path is not None
        self.caller = caller = gate.enter(self, plan.route.scope)
        constant = gate.constant(caller) if caller is not None and len(self.extra) == 1 else None
        if constant is not None and len(plan.callers) < MOST_ADDRESSES:
            plan.callers[peer] = constant, caller
        else:
            plan.callers.pop(peer, None)

    def _request(self) -> tuple[bytes, bytes]:
        body = self._body
        words = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        return words % (self._plan.request_lines, self._request_id or self._id(), len(body)), body

    # What the engine's connection calls.

    def received(self, data: bytes) -> None:
        try:
            if self._missing:
                self._more(data)
            elif self._got:
                self._begins(self._got + data)
            else:
                answer, length, end = self._plan.means.answers.find(data)
                if answer is not None and not answer.events and len(data) - end == length:
                    self.chunks += 1
                    self._whole(answer, data[end:], False)
                else:
                    self._begins(data)
        except CorralError as error:
            self.failed(error)
        except Exception as error:  # noqa: BLE001 - its client must hear of it
            self.bug(error)

    def lost(self, *, broken: bool) -> None:
        head_came, streaming = self._answer is not None, self._streaming
        if head_came:
            error = upstream.gone("the engine's connection ended before its answer did", sent_any=True)
        else:
            error = upstream.gone("the engine closed the connection without an answer")
        if streaming is not None and streaming.sent is None:
            self.failed(error)
        elif self._kept and not head_came:
            assert self._held is not None
            self._go_on(upstream.anew(self._held.lease.endpoint, self._request(), self._plan.means.pool))
        else:
            self._go_on(upstream.failed(error))

    # The answer.

    def _begins(self, data: bytes) -> None:
        answer, length, end = self._plan.means.answers.find(data)
        if end < 0:
            self._got = data
            return
        if answer is None or length > HELD_BYTES or len(data) > _FIRST_BYTES:
            self._adopt(data)
            return
        self._answer = answer
        if not answer.events:
            self._pieces = []
            self._missing = length
            if end < len(data) or not length:
                self._more(data[end:])
        elif end == len(data):
            self._got = data
        else:
            self._streams(answer, data, end)

    def _streams(self, answer: Answer, data: bytes, end: int) -> None:
        """An event stream, of which the first event may be there. As long as none is, all of it is looked at again."""
        passage = Passage()
        self.chunks += 1
        first = passage.feed(data[end:])
        if b'"error"' in first[:80]:
            self._adopt(data)  # perhaps it says that the engine has to be replaced
            return
        out = chunks_without_count(first) if self._hides else first
        if not out:
            self._got = data
            return
        self._got = b""
        self.stream = self.started = self.events = self._chunked = True
        link, engine = self._link, self._engine
        assert engine is not None
        streaming = FastStream(self, link, passage, hides=self._hides, resumes=self._plan.resumes)
        self._streaming = engine.receiver = streaming
        streaming.keep(first)
        last = _LAST if link.keep_alive else _CLOSES
        out = b"%b%btransfer-encoding: chunked\r\n%b%b" % (*self._head(answer), last, out)
        if passage.done:
            self.stream_ended(streaming, out)
        elif not link.transmit(out):
            self.hold()

    def hold(self) -> None:
        """The client is behind: the engine has to wait."""
        self.held = True
        assert self._engine is not None
        self._engine.pause()

    def resumed(self) -> None:
        """The client takes more again."""
        if self._engine is not None and self._held is not None:
            self.held = False
            self._engine.listen()

    def stream_ended(self, streaming: FastStream, out: bytes) -> None:
        """`out` is the last piece, and not sent yet."""
        if out:
            self._link.transmit(out)
        self.ended = True
        held, means = self._held, self._plan.means
        ticket, self._ticket = self._ticket, None
        assert held is not None
        usage, end, failed = streaming.took()
        if failed:
            Tries(means.leases, True).ended(held.lease, streaming.end)
        if ticket is not None:
            if not self._hides and not failed:
                means.silent.ended(self._model, told=usage is not None)
            said = sent.read().tokens if usage is None and (sent := streaming.told()) is not None else 0
            ticket.settle(usage, max(said, self.chunks))
        self._over(end, streaming.surplus)

    def _more(self, data: bytes) -> None:
        """A piece of a plain answer, which goes out as a whole."""
        self.chunks += 1
        left = self._missing - len(data)
        if left > 0:
            self._pieces.append(data)
            self._missing = left
            return
        body = data if left == 0 else data[:left]
        assert self._answer is not None
        self._whole(self._answer, b"".join((*self._pieces, body)) if self._pieces else body, left < 0)

    def _whole(self, answer: Answer, body: bytes, surplus: bool) -> None:
        self._answer = answer
        self.started = True
        link = self._link
        before, own = self._head(answer)
        last = _LAST if link.keep_alive else _CLOSES
        link.transmit(b"%bcontent-length: %d\r\n%b%b%b" % (before, len(body), own, last, body))
        self.ended = True
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.settle(usage_of(body), self.chunks)
        self._over(body, surplus)

    def _head(self, answer: Answer) -> tuple[bytes, bytes]:
        """The head of the answer but for its last lines: our own fields come after a length, as everywhere."""
        assert self._held is not None
        before = self._plan.means.before(answer, self._link.standing_fields(), self._held.lease)
        return before, as_lines(self.extra) if self._filled else b"x-request-id: %b\r\n" % self._request_id

    def _over(self, end: bytes, surplus: bool) -> None:
        """The answer went out as a whole, and is settled; `end` is that of the engine's."""
        engine, held, answer, means = self._engine, self._held, self._answer, self._plan.means
        assert engine is not None and held is not None and answer is not None
        self._engine = self._held = self._streaming = None  # the latter refers to us, too
        if surplus or not answer.keeps or engine.sending:
            engine.close()
        elif answer.events:
            means.pool.give_streamed(held.lease.endpoint, engine)
        else:
            means.pool.give(held.lease.endpoint, engine)
        self.answered = True
        if self.learns:
            means.pulses.learn(self, end)
        means.pulses.end(self)
        held.give_back()
        self._link.done(self)

    # What ends it early.

    def _release(self) -> None:
        held, engine = self._held, self._engine
        if engine is not None:
            engine.close()
        self._engine = self._held = None
        if held is None:
            return
        self._plan.means.pulses.end(self)
        if self._ticket is not None:
            usage, said = None, 0
            if (streaming := self._streaming) is not None:
                usage, _, _ = streaming.took()
                said = sent.read().tokens if (sent := streaming.told()) is not None else 0
            # The engine may have read all of the prompt, even where nothing came of it.
            self._ticket.settle(usage, max(said, self.chunks, 1))
        self._streaming = None
        held.give_back()

    def client_left(self) -> None:
        if self.task is not None:
            super().client_left()
        elif not self.ended and not self.gone:
            self.gone = True
            self._release()
            self._link.left(self)

    def interrupt(self, error: CorralError) -> None:
        if self.task is not None:
            super().interrupt(error)
        elif not self.ended and not self.gone and self.interruption is None:
            self.interruption = error
            self.failed(error)

    def fail(self, error: CorralError, *, broken: bool = False) -> None:
        super().fail(error, broken=broken)
        if self.task is None:
            self._link.run(self)  # it has begun to come, and so is filled

    def failed(self, error: CorralError) -> None:
        """It ends with `error`, as far as its client can still be told."""
        error = error.with_traceback(None)  # its frames hold the body
        self._release()
        if not self.gone and not self.ended:
            self._run(lambda exchange: self._plan.fast.app.refuse(exchange, error))

    def bug(self, error: Exception) -> None:
        """As `failed`, for what should not have happened."""
        log.error("%s %s failed", self.method, self.path, exc_info=error)
        self.failed(Bug(f"an internal error: {type(error).__name__}", hint="please report it, with Corral's log"))

    # What goes on in a task.

    def _run(self, work: Work | None = None) -> None:
        self.fill(len(self._body))
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
            begun.drop(self._plan.means.pulses)
