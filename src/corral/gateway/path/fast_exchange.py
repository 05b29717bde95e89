"""`FastExchange`: a request on the fast path, from its last byte to the last one of its answer, in callbacks alone.

It keeps what the other way keeps: nothing is sent before the engine's first event or whole answer is there, a slow
client slows the engine, one that leaves frees it, and a stream that breaks ends with an error event.
"""

from __future__ import annotations

import logging

from corral import clock
from corral.errors import Bug, CorralError
from corral.gateway.dialects.prepare import is_plain
from corral.gateway.dialects.tally import may_be_several, prompts_of
from corral.gateway.dialects.usage import usage_of
from corral.gateway.http.outbox import FEW
from corral.gateway.path import upstream
from corral.gateway.path.again import Tries, ailment, healthy
from corral.gateway.path.count import asking
from corral.gateway.path.fast import MOST_PERMITS, Permit
from corral.gateway.path.fast_heads import Answer, as_lines
from corral.gateway.path.fast_stream import FastStream
from corral.gateway.path.fast_tasks import WithoutTask
from corral.gateway.path.link import connect_now
from corral.gateway.path.passage import Passage, chunks_without_count, unframed
from corral.gateway.path.peek import glance, peek, splice
from corral.gateway.path.relay import HELD_BYTES

_FIRST_BYTES = 1 << 20
"""Of an answer whose first event is not whole yet; what comes to more goes on in a task."""

_NO_GATE = object()
NEVER = float("inf")

_LAST = b"\r\n"
_CLOSES = b"connection: close\r\n\r\n"

log = logging.getLogger("corral.gateway")


class FastExchange(WithoutTask):
    """One request on one connection. What its client and its engine do calls it."""

    __slots__ = ()

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
        means = plan.means
        if (seen := glance(body)) is None:
            return False
        named, stream, members = seen
        permit = plan.permits.get((self._link.peer, named))
        if permit is not None and permit.holds(plan, self.began):
            self.caller, self.path, self.entered = permit.caller, plan.path, True
        elif (permit := self._permit(named)) is None:
            return False
        if len(body) > permit.most_bytes:
            return False
        if permit.looks:
            if not is_plain(body, members):
                return False
        elif may_be_several(members) and prompts_of(plan.target, body) is not None:
            return False  # it takes more to know what it took
        if stream and permit.key and not plan.resumes:
            return False  # its events are counted
        model, leases = permit.model, means.leases
        if (held := leases.try_lease(model)) is None:
            return False
        lease = held.lease
        endpoint = lease.endpoint
        if endpoint.model or endpoint.key or (means.conversations is not None and means.conversations.wanted(lease)):
            held.give_back()
            return False
        if (engine := means.pool.take(endpoint)) is not None:
            self._kept = True
        elif (engine := connect_now(endpoint)) is None:
            held.give_back()
            return False
        self._held, self._engine, self._model, self._key = held, engine, model, permit.key
        self.unit, self.prompt_bytes, self.stream = lease.unit, len(body), stream
        now = clock.monotonic()
        means.pulses.begins(self, now)
        if model != named:
            body = splice(body, peek(body), model)
        if (ticket := permit.ticket) is None and (gate := means.gate) is not None:
            ticket = gate.admit(self, model, body)
            permit.ticket = ticket  # of one that is not kept, nobody else hears
        if ticket is not None:
            self._ticket = ticket
            if ticket.body is not None:
                body = ticket.body
            if stream and model in means.silent and (asked := asking(body)) is not None:
                self._hides, body = True, asked
            if ticket.saved is not None:
                self._body, self.granted = body, now
                self._later(engine)
                return True
        self._body, self.granted = body, now
        engine.receiver = self
        if len(plan.fast.app.active) > FEW:
            engine.post(*self._request(), means.outbox)
        else:
            engine.send(*self._request())
        if not self._kept:
            engine.listen()  # one that waited is listened to already
        return True

    def _permit(self, named: str | None) -> Permit | None:
        """Finds out what the model is, and whether the client may ask; None when it has to take the other way. Raises
        CorralError."""
        plan, peer = self._plan, self._link.peer
        fast, route = plan.fast, plan.route
        caller, constant = None, _NO_GATE
        if (gate := plan.means.gate) is not None:
            self.path, self.entered = plan.path, True
            self.fill(len(self._body))
            self.where = fast.app.where
            self.local = self.where.path is not None
            self.caller = caller = gate.enter(self, route.scope)
            constant = gate.constant(caller) if caller is not None and len(self.extra) == 1 else None
        if (found := fast.resolve(named)) is None:
            return None
        until = NEVER if route.plain_until is None else route.plain_until(found)
        if until < self.began:
            return None
        permit = Permit(plan, found.name, until, caller, constant)
        if constant is not None:
            if len(plan.permits) >= MOST_PERMITS:
                plan.permits.clear()
            plan.permits[peer, named] = permit
        return permit

    # What the engine's connection calls.

    def received(self, data: bytes) -> None:
        try:
            if self._missing:
                self._more(data)
            elif self._got:
                self._begins(self._got + data)
            elif (found := self._plan.means.answers.whole(data)) is not None:
                self.chunks += 1
                self._whole(found[0], data[found[1] :], False)
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

    def ailed(self, events: bytes) -> bool:
        """Whether these end with the engine's word that it is to be replaced: then its successor goes on."""
        held, engine, streaming = self._held, self._engine, self._streaming
        assert held is not None and engine is not None and streaming is not None
        before, said = healthy(unframed(events))
        if not said:
            return False
        if before:
            out = b"%x\r\n%b\r\n" % (len(before), before)
            streaming.keep(out)
            self._link.transmit(chunks_without_count(out) if self._hides else out)
        engine.close()
        self._go_on(upstream.failed(ailment(held.lease, said)))
        return True

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
        if b'"error"' in first:
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
        held = self._held
        assert held is not None
        before = self._plan.means.before(answer, link.standing_fields(), held.lease)
        out = b"%b%btransfer-encoding: chunked\r\n%b%b" % (before, self._own(), last, out)
        self.first = clock.monotonic()
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
        now = clock.monotonic()
        self._record("", end, now)
        if failed:
            Tries(means.leases, True).ended(held.lease, streaming.end)
        if ticket is not None:
            if not self._hides and not failed:
                means.silent.ended(self._model, told=usage is not None)
            said = sent.read().tokens if usage is None and (sent := streaming.told()) is not None else 0
            ticket.settle(usage, max(said, self.chunks))
        self._over(end, streaming.surplus, now)

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
        link, held, means = self._link, self._held, self._plan.means
        assert held is not None
        self._answer, self.started = answer, True
        before = means.before(answer, link.standing_fields(), held.lease)
        if link.keep_alive and not self._filled:
            words = b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b"
            link.post(words % (before, len(body), self._request_id, body))
        else:
            last = _LAST if link.keep_alive else _CLOSES
            link.post(b"%bcontent-length: %d\r\n%b%b%b" % (before, len(body), self._own(), last, body))
        self.ended = True
        self.first = now = clock.monotonic()
        self._record("", body, now)
        if (ticket := self._ticket) is not None:
            self._ticket = None
            ticket.settle(usage_of(body), None)
        self._over(body, surplus, now)

    def _own(self) -> bytes:
        """The last fields of the answer's head: our own come after a length, as everywhere."""
        return as_lines(self.extra) if self._filled else b"x-request-id: %b\r\n" % self._request_id

    def _over(self, end: bytes, surplus: bool, now: float) -> None:
        """The answer went out as a whole, and is settled; `end` is that of the engine's."""
        engine, held, answer, means = self._engine, self._held, self._answer, self._plan.means
        assert engine is not None and held is not None and answer is not None
        self._engine = self._held = self._streaming = None  # the latter refers to us, too
        if surplus or not answer.keeps or engine.sending:
            engine.close()
        elif answer.events:
            means.pool.give_streamed(held.lease.endpoint, engine)
        else:
            means.pool.give(held.lease.endpoint, engine, now)
        self.answered = True
        if self.learns:
            means.pulses.learn(self, end)
        means.pulses.end(self)
        held.give_back()
        self._link.done(self, now)

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
            # The engine may have read all of the prompt, even where nothing came of it, and of an answer in one piece
            # nobody knows anything.
            self._ticket.settle(usage, max(said, self.chunks, 1) if self.stream else None)
        self._streaming = None
        held.give_back()

    def client_left(self) -> None:
        if self.task is not None:
            super().client_left()
        elif not self.ended and not self.gone:
            self.gone = True
            self._release()
            self._record("left", b"", clock.monotonic())
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
        log.error("%s %s failed", self.method, self._plan.path, exc_info=error)
        self.failed(Bug(f"an internal error: {type(error).__name__}", hint="please report it, with Corral's log"))
