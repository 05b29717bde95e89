"""`Forwarding`: one request on its way to an engine, and to another one where that dies over it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from corral import clock
from corral.errors import EngineGone, Forbidden
from corral.gateway.dialects.dialect import Translate
from corral.gateway.dialects.tally import Tally, prompts_of
from corral.gateway.dialects.usage import said, usage_of
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Ticket
from corral.gateway.http import headers as fields
from corral.gateway.path import count, upstream
from corral.gateway.path.addressed import addressed
from corral.gateway.path.again import Tries, why_lost
from corral.gateway.path.begun import Begun
from corral.gateway.path.continued import TARGETS
from corral.gateway.path.feedback import Feedback, feedback
from corral.gateway.path.passing import Passing
from corral.gateway.path.relay import Relay
from corral.gateway.path.resume import Resume, resume
from corral.gateway.recall import Recalled
from corral.gateway.request_ids import new_request_id
from corral.scheduler.lease import Lease
from corral.supervisor.pulse import Pulse

if TYPE_CHECKING:
    from corral.gateway.path.proxy import Proxy

_TAIL_BYTES = 4096  # of an answer; the engine's timings are in its last event
_SAFE = ("GET", "HEAD", "OPTIONS")
INFINITY = float("inf")
_DAY_S = 86_400.0
_FOR_EVER_S = 100 * 365 * _DAY_S  # what is longer is no length of time that anybody meant


class Forwarding:
    """See `Proxy.forward` for what it is given. Once it is made, what the request may take is set aside: `run` it."""

    def __init__(
        self,
        proxy: Proxy,
        exchange: Exchange,
        model: str,
        target: bytes,
        body: bytes,
        *,
        again: bool,
        identity: bool,
        stream: bool,
        method: str | None,
        keep_alive_s: float | None,
        translate: Translate | None,
        begun: Begun | None,
    ) -> None:
        """Raises CallerError, Forbidden, and what the gate does."""
        self._proxy, self._exchange, self._course = proxy, exchange, exchange.course
        self._model, self._target, self._body = model, target, body
        self._stream, self._translate, self._begun = stream, translate, begun
        self._course.asked(model, stream)
        self._deadline = self._patience()
        self._method = method or exchange.method
        headers = fields.upward(exchange.headers, _request_id(exchange), identity=identity or bool(translate))
        self._headers = headers if translate is None else fields.of_json(headers)
        keep_s = fields.keep_alive_s(fields.first(exchange.headers, b"x-corral-keep-alive"))
        self._keep_s = keep_alive_s if keep_s is None else keep_s
        if self._keep_s is not None:
            self._keep_s = self._kept(self._keep_s)
        self._judged = again
        again = again or self._method in _SAFE
        self._pool = proxy.pool if again else None
        self._tries = Tries(proxy.leases, again)
        self._end = b""  # of the answer, once it is whole
        self._events: int | None = 0  # of the last try
        self._tally: Tally | None = None  # where the usual figures do not tell it all
        self._several = False  # answers were asked for
        self._going: Resume | None = None  # where another engine could go on with its stream
        self._waiting: Feedback | None = None  # while its client hears that it waits
        self._hides = False  # the engine's count is not for the client
        self._ticket: Ticket | None
        if begun is not None:
            self._ticket, self._hides = begun.ticket, begun.hides
        else:
            self._ticket = self._admitted()
            if self._ticket is not None and self._ticket.body is not None:
                self._body = self._ticket.body

    def _kept(self, keep_s: float) -> float:
        """How long the model is kept where the client wants `keep_s`. Who holds a key that is not the server's own may
        not take a place that nobody else gets back: a day, or longer where its model stays longer by itself. Raises
        Forbidden."""
        exchange = self._exchange
        model = self._proxy.host.settings.models.get(self._model)
        own_s = 0.0 if model is None else INFINITY if model.idle_timeout_s is None else model.idle_timeout_s
        if keep_s > max(_DAY_S, own_s) and exchange.caller is not None and not exchange.caller.may("admin"):
            raise Forbidden(
                "keeping a model loaded for ever needs a key with the scope admin, and more than a day counts as that",
                hint="say a duration such as 1h in keep-alive; `pin: true` in models.yaml keeps a model",
                scope="admin",
            )
        return INFINITY if keep_s > _FOR_EVER_S else keep_s

    def _admitted(self) -> Ticket | None:
        gate = self._proxy.gate
        if gate is None or self._exchange.admitted:
            return None
        path = unquote_to_bytes(self._target.partition(b"?")[0]).decode("utf-8", "replace")
        return gate.admit(self._exchange, self._model, self._body, self._method, path)

    def _patience(self) -> float:
        """Until when it may wait for an engine."""
        return clock.monotonic() + self._proxy.host.settings.timeouts.queue_s

    async def run(self) -> None:
        """Has it answered. Raises whatever leasing raises, EngineError, EngineGone, and what translations raise."""
        try:
            self._prepare()
            if self._ticket is not None and self._ticket.saved is not None:
                await self._ticket.saved
            while not await self._try():
                pass
        finally:
            self._settle()

    def _prepare(self) -> None:
        """Sees to what an answer has beside its words."""
        begun = self._begun
        if begun is None and self._body:
            prompts = prompts_of(self._target, self._body)
            self._several = prompts is not None
            # Nothing else counts the events of what no other engine could go on with.
            if prompts is not None or (self._ticket is not None and self._target not in TARGETS):
                self._tally = Tally(prompts or 1)
        if not self._stream:
            return
        if self._ticket is not None and begun is None and self._model in self._proxy.silent:
            asked = count.asking(self._body)
            self._hides, self._body = asked is not None, asked or self._body
        self._going = resume(self._target, self._body, begun.sent if begun is not None else None)
        if (waiting := feedback(self._exchange, self._proxy.host, self._model)) is not None:
            self._waiting, self._body = waiting, waiting.asking(self._body)

    async def _try(self) -> bool:
        """One engine's part; False when there is to be another one."""
        proxy, waiting = self._proxy, self._waiting
        first, self._begun = self._begun, None
        if waiting is not None:
            waiting.wait()
        async with self._lease() if first is None else first.lease() as lease:
            self._course.leased(lease.unit)
            pulse = (
                proxy.pulses.begin(lease.unit, len(self._body), judged=self._judged, stream=self._stream)
                if first is None
                else first.pulse
            )
            if waiting is not None:
                waiting.pulse = pulse
            recalled: Recalled | None = None
            try:
                if first is None and self._judged and (kept := proxy.conversations) and kept.wanted(lease):
                    recalled = await kept.recall(lease, self._target, self._body)
                    pulse.learns = pulse.learns or recalled is not None
                await self._answered(lease, pulse, first, recalled)
                return True
            except EngineGone as exc:
                if recalled is not None:
                    recalled.died()
                await self._lost(lease, exc)
                return False
            finally:
                course = self._course
                course.chunks, course.stream = course.chunks + pulse.chunks, course.stream or pulse.stream
                # The engine may have read all of the prompt. What comes in one piece tells nothing until it is there.
                self._events = max(pulse.chunks, 1) if pulse.stream else None
                proxy.pulses.end(pulse)

    def _lease(self) -> AbstractAsyncContextManager[Lease]:
        caller = self._exchange.caller
        key = caller.id if caller is not None else ""
        return self._proxy.leases.lease(self._model, deadline=self._deadline, key=key, keep_alive_s=self._keep_s)

    async def _answered(self, lease: Lease, pulse: Pulse, first: Begun | None, recalled: Recalled | None) -> None:
        """Asks the engine, and relays what it answers."""
        if first is not None:
            asking = first.asking
        else:
            headers, body = self._headers, self._body
            if (where := lease.endpoint).model or where.key:
                headers, body = await addressed(where, lease.model, headers, body)
            asking = upstream.request(where, self._method, self._target, headers, body, pool=self._pool)
        async with asking as response:
            told = self._translate(lease) if self._translate is not None else None
            if self._going is not None:
                told = self._going.told_by(told)
            passing = Passing(lease, self._going, self._waiting, hides=self._hides, tally=self._tally)
            end = await Relay(self._exchange, lease, self._tries, response, pulse, told, passing).run()
            self._end = self._course.end = end
            pulse.answered = True
            if self._stream:
                self._tries.ended(lease, end)
            if pulse.learns:
                self._proxy.pulses.learn(pulse, end)
            if recalled is not None:
                recalled.answered(end[-_TAIL_BYTES:])

    async def _lost(self, lease: Lease, error: EngineGone) -> None:
        """Makes ready for another try. Raises `error` where there is none."""
        exchange, going = self._exchange, self._going
        if exchange.answering:
            rest = None
            if going is not None and self._proxy.host.settings.resume:
                rest = await going.rest(lease, self._tries, error)
            if rest is None:
                self._tries.given_up(lease, error)
                raise error
            self._course.resumes += 1
            self._course.lost += (why_lost(error),)
            self._body, self._deadline = rest, self._patience()
        elif await self._tries.more(lease, error):
            self._course.retries += 1
            self._course.lost += (why_lost(error),)
        else:
            exchange.extra = exchange.extra + fields.of_lease(lease)
            raise error

    def _settle(self) -> None:
        """It is over, however it ended."""
        exchange, going, tally, ticket = self._exchange, self._going, self._tally, self._ticket
        end, events = self._end, self._events
        if self._waiting is not None:
            self._waiting.close()
        if going is not None and going.going_on and (whole := going.usage(end)) is not None:
            self._course.end = said(whole)  # the last engine knows of its own part only
        if ticket is None and not self._several:
            return
        if going is not None:
            usage = going.usage(end)
            events = events and max(going.tokens, events)
        else:
            usage = usage_of(end)
            if tally is not None:
                events = events and max(tally.events, events)
        if tally is not None and self._several and end:
            usage = tally.plain(end) if events is None else tally.streamed()
            if usage is not None:
                self._course.end = said(usage)
        if ticket is None:
            return
        if self._stream and not self._hides and end.rstrip().endswith(b"[DONE]"):
            self._proxy.silent.ended(self._model, told=usage is not None)
        refused = exchange.status >= 400 or (exchange.early and not exchange.gone)
        ticket.settle(usage, 0 if refused else events)


def _request_id(exchange: Exchange) -> bytes:
    return fields.first(exchange.extra, b"x-request-id") or new_request_id()
