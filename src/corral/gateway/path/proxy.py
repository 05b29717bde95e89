"""The request path: from a client's bytes to an engine and back, holding a lease for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corral.errors import NotJson
from corral.gateway.dialects.dialect import Translate
from corral.gateway.exchange import Exchange, Gathered
from corral.gateway.gate import Gate
from corral.gateway.host import Host
from corral.gateway.named import named
from corral.gateway.path import count
from corral.gateway.path.begun import Begun
from corral.gateway.path.forwarding import Forwarding
from corral.gateway.path.link import Pool
from corral.gateway.path.peek import peek, splice
from corral.gateway.recall import Conversations
from corral.scheduler.lease import Leases
from corral.supervisor.pulse import Pulses

_LARGE_BYTES = 256 << 10
"""From this size on a body is looked at in a thread: it takes milliseconds that streams should not wait."""


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
        self.host = host
        self.leases = leases
        self.pulses = pulses or Pulses()
        self.conversations = conversations
        self.gate = gate
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
        model = (await self.host.find(named(exchange, seen.model), exchange.listener_default, exchange.caller)).name
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
        await Forwarding(
            self, exchange, model, target, body, again=again, identity=identity, stream=stream, method=method,
            keep_alive_s=keep_alive_s, translate=translate, begun=begun,
        ).run()  # fmt: skip

    async def go_on(self, exchange: Exchange) -> None:
        """Goes on with what the fast path began."""
        begun, exchange.begun = exchange.begun, None
        assert begun is not None
        if begun.ticket is not None and (saved := begun.ticket.saved) is not None:
            try:
                await saved
            except BaseException:
                begun.drop(self.pulses)
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
