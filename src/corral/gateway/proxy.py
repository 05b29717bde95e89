"""The request path: from a client's bytes to an engine and back, holding a lease for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corral import clock
from corral.errors import EngineGone, Forbidden, NotJson
from corral.gateway import count, upstream
from corral.gateway import headers as fields
from corral.gateway.again import Tries
from corral.gateway.begun import Begun
from corral.gateway.dialects.dialect import Translate
from corral.gateway.exchange import Exchange, Gathered
from corral.gateway.feedback import feedback
from corral.gateway.gate import Gate
from corral.gateway.host import Host
from corral.gateway.link import Pool
from corral.gateway.named import named
from corral.gateway.passing import Passing
from corral.gateway.peek import peek, splice
from corral.gateway.recall import Conversations, Recalled
from corral.gateway.relay import Relay
from corral.gateway.request_ids import new_request_id
from corral.gateway.resume import Resume, resume
from corral.gateway.usage import usage_of
from corral.scheduler.lease import Lease, Leases
from corral.supervisor.pulse import Pulses

_LARGE_BYTES = 256 << 10
"""From this size on a body is looked at in a thread: it takes milliseconds that streams should not wait."""

_TAIL_BYTES = 4096  # of an answer; the engine's timings are in its last event
_SAFE = ("GET", "HEAD", "OPTIONS")
INFINITY = float("inf")


class Proxy:
    """Answers exchanges through leased engines."""

    def __init__(
        self,
        host: Host,
        leases: Leases,
        pulses: Pulses | None = None,
        conversations: Conversations | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._host = host
        self._leases = leases
        self._pulses = pulses or Pulses()
        self._conversations = conversations
        self._gate = gate
        self.pool = Pool()
        self.silent = count.Silent()
        self.at_rest: list[Callable[[], None]] = []

    def rest(self) -> None:
        """Closes the connections that wait for a request, and what else is open only to be quick."""
        self.pool.close()
        for close in self.at_rest:
            close()

    async def infer(self, exchange: Exchange, body: bytes) -> None:
        """An inference route: the model is the one that the body or the query names, and its name in the body becomes
        ours.

        Raises NotJson, CallerError, UnknownModel, MissingModel, whatever leasing raises, EngineError, EngineGone.
        """
        try:
            seen = peek(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(peek, body)
        except NotJson as exc:
            raise _explained(exc, exchange, body) from exc
        model = (await self._host.find(named(exchange, seen.model), exchange.listener_default, exchange.caller)).name
        body = splice(body, seen, model)
        await self.forward(exchange, model, _target(exchange), body, again=True, identity=True, stream=seen.stream)

    async def forward(
        self,
        exchange: Exchange,
        model: str,
        target: bytes,
        body: bytes,
        *,
        again: bool,
        identity: bool = False,
        stream: bool = False,
        method: str | None = None,
        keep_alive_s: float | None = None,
        translate: Translate | None = None,
        begun: Begun | None = None,
    ) -> None:
        """Sends `body` to `target` of a ready unit of `model` and relays the answer.

        `again`: it may be sent to another engine when one died over it, and is one that makes progress while it runs.
        `identity`: no compressed answer is wanted. `stream`: each token is wanted as it is made. `method` is the
        engine's, where it is not the client's. `keep_alive_s` is what the request says of its model's idle time.
        `translate` makes what turns the answer into the client's dialect; the body is JSON of ours then. `begun` is the
        first try, where the fast path made it.
        """
        deadline = clock.monotonic() + self._host.settings.timeouts.queue_s
        method = method or exchange.method
        request_headers = fields.upward(exchange.headers, _request_id(exchange), identity=identity or bool(translate))
        if translate is not None:
            request_headers = fields.of_json(request_headers)
        keep_s = fields.keep_alive_s(fields.first(exchange.headers, b"x-corral-keep-alive"))
        keep_s = keep_alive_s if keep_s is None else keep_s
        if keep_s == INFINITY:
            _check_pin(exchange)
        key = exchange.caller.id if exchange.caller is not None else ""
        judged, again = again, again or method in _SAFE
        pool = self.pool if again else None
        tries, end, events = Tries(self._leases, again), b"", 0
        going = waiting = None
        hides = False
        if begun is not None:
            ticket, hides = begun.ticket, begun.hides
        else:
            ticket = self._gate.admit(exchange, model, body) if self._gate is not None else None
            if ticket is not None and ticket.body is not None:
                body = ticket.body
        try:
            if stream and ticket is not None and begun is None and model in self.silent:
                asked = count.asking(body)
                hides, body = asked is not None, asked or body
            if stream:
                going = resume(target, body, begun.sent if begun is not None else None)
                if (waiting := feedback(exchange, self._host, model)) is not None:
                    body = waiting.asking(body)
            if ticket is not None and ticket.saved is not None:
                await ticket.saved
            while True:
                first, begun = begun, None
                if waiting is not None:
                    waiting.wait()
                async with (
                    self._leases.lease(model, deadline=deadline, key=key, keep_alive_s=keep_s)
                    if first is None
                    else first.lease()
                ) as lease:
                    pulse = (
                        self._pulses.begin(lease.unit, len(body), judged=judged, stream=stream)
                        if first is None
                        else first.pulse
                    )
                    if waiting is not None:
                        waiting.pulse = pulse
                    recalled: Recalled | None = None
                    try:
                        if first is None and judged and (kept := self._conversations) and kept.wanted(lease):
                            recalled = await kept.recall(lease, target, body)
                            pulse.learns = pulse.learns or recalled is not None
                        async with (
                            upstream.request(lease.endpoint, method, target, request_headers, body, pool=pool)
                            if first is None
                            else first.asking
                        ) as response:
                            told = translate(lease) if translate is not None else None
                            if going is not None:
                                told = going.told_by(told)
                            passing = Passing(lease, going, waiting, hides=hides)
                            end = await Relay(exchange, lease, tries, response, pulse, told, passing).run()
                            pulse.answered = True
                            if stream:
                                tries.ended(lease, end)
                            if pulse.learns:
                                self._pulses.learn(pulse, end)
                            if recalled is not None:
                                recalled.answered(end[-_TAIL_BYTES:])
                            return
                    except EngineGone as exc:
                        if recalled is not None:
                            recalled.died()
                        if exchange.answering:
                            rest = await self._rest(going, lease, tries, exc)
                            if rest is None:
                                raise
                            body, deadline = rest, clock.monotonic() + self._host.settings.timeouts.queue_s
                        elif not await tries.more(lease, exc):
                            exchange.extra = exchange.extra + fields.of_lease(lease)
                            raise
                    finally:
                        events = pulse.chunks or exchange.gone  # the engine may have read all of the prompt
                        self._pulses.end(pulse)
        finally:
            if waiting is not None:
                waiting.close()
            if ticket is not None:
                if going is not None:
                    usage, events = going.usage(end), max(going.tokens, events)
                else:
                    usage = usage_of(end)
                if stream and not hides and end.rstrip().endswith(b"[DONE]"):
                    self.silent.ended(model, told=usage is not None)
                refused = exchange.status >= 400 or (exchange.early and not exchange.gone)
                ticket.settle(usage, 0 if refused else events)

    async def _rest(self, going: Resume | None, lease: Lease, tries: Tries, error: EngineGone) -> bytes | None:
        """The body of a request for what is missing of a stream that broke; None when it ends there."""
        if going is None or not self._host.settings.resume:
            return None
        return await going.rest(lease, tries, error)

    async def go_on(self, exchange: Exchange) -> None:
        """Goes on with what the fast path began."""
        begun, exchange.begun = exchange.begun, None
        assert begun is not None
        if begun.ticket is not None and (saved := begun.ticket.saved) is not None:
            try:
                await saved
            except BaseException:
                begun.drop(self._pulses)
                raise
        await self.forward(
            exchange, begun.model, begun.target, begun.body, again=True, identity=True, stream=begun.stream, begun=begun
        )

    async def ask(
        self, exchange: Exchange, model: str, target: bytes, body: bytes, *, method: str = "POST"
    ) -> tuple[int, bytes]:
        """What a ready unit of `model` answers to a question of ours on behalf of `exchange`. Raises as `forward`."""
        gathered = Gathered(exchange)
        gathered.path = target.partition(b"?")[0].decode("latin-1")  # by which it is counted
        await self.forward(gathered, model, target, body, again=True, identity=True, method=method)
        return gathered.status, gathered.answer


def _target(exchange: Exchange) -> bytes:
    return exchange.raw_path + b"?" + exchange.query if exchange.query else exchange.raw_path


def _check_pin(exchange: Exchange) -> None:
    """Who holds a key that is not the server's own may not take a place that nobody else gets back. Raises
    Forbidden."""
    if exchange.caller is not None and not exchange.caller.may("admin"):
        raise Forbidden(
            "keeping a model loaded for ever needs a key with the scope admin",
            hint="say a duration such as 1h in keep-alive; `pin: true` in models.yaml keeps a model",
            scope="admin",
        )


def _request_id(exchange: Exchange) -> bytes:
    return fields.first(exchange.extra, b"x-request-id") or new_request_id()


def _explained(exc: NotJson, exchange: Exchange, body: bytes) -> NotJson:
    """The commonest reasons why a body is no JSON, where they can be seen."""
    hint = exc.hint
    coding = exchange.header(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        hint = "compressed request bodies are not taken: send it without content-encoding"
    elif not body and exchange.header(b"upgrade") is not None:
        hint = "the body was lost to the Upgrade header: speak plain HTTP/1.1 without it"
    elif not body:
        hint = 'send a JSON object, such as {"model": "…", "messages": […]}'
    return NotJson(exc.message, hint=hint, **exc.details)
