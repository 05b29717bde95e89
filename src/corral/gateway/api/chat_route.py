"""Chat completions on their way to an engine: OpenAI's own, and those that other dialects are made of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from corral.config.settings import ModelSettings
from corral.errors import NotJson, Unparsed
from corral.gateway import request_ids
from corral.gateway.dialects import chat, for_vllm, several
from corral.gateway.dialects.chain import Chain, Unchanged
from corral.gateway.dialects.dialect import Translate, Translation
from corral.gateway.dialects.prepare import Prepared, bare, is_plain, prepared
from corral.gateway.dialects.reasoning.clean import Cleaned
from corral.gateway.dialects.reasoning.harmony import CHANNEL
from corral.gateway.dialects.reasoning.style import Style
from corral.gateway.dialects.tool_choice import Called
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.named import named
from corral.gateway.path.peek import peek, splice
from corral.gateway.path.proxy import Proxy
from corral.gateway.traits import Traits
from corral.scheduler.lease import Lease

PATH = b"/v1/chat/completions"
_LARGE_BYTES = 256 << 10  # from this size on a body is read in a thread


class Chat:
    """Chat requests over one host and one proxy."""

    def __init__(self, host: Host, proxy: Proxy, traits: Traits) -> None:
        self._host, self._proxy, self._traits = host, proxy, traits

    def plain_until(self, model: ModelSettings) -> float:
        """Until when (on `clock.monotonic`) requests to `model` and their answers go through as they are, where
        `is_plain` says so of the request; 0 where they do not, or nobody knows yet."""
        style, until = self._traits.until(model)
        return until if style is not None and style.cleaner == "none" else 0.0

    def relays(self, model: ModelSettings, body: bytes) -> bool:
        """Whether a request and its answer go through as they are."""
        style = self._traits.known(model)
        return style is not None and style.cleaner == "none" and is_plain(body)

    async def answer(self, exchange: Exchange, body: bytes) -> None:
        """OpenAI's route. Raises as `Proxy.infer` does."""
        try:
            seen = peek(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(peek, body)
        except NotJson:
            await self._proxy.infer(exchange, body)  # which says what is wrong with it
            return
        model = await self._host.find(named(exchange, seen.model), exchange.listener_default, exchange.caller)
        style = await self._traits.of(model)
        if self.relays(model, body):
            await self._proxy.infer(exchange, body)
            return
        read = chat.parsed(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(chat.parsed, body)
        request = {**(read or {}), "model": model.name}
        ready = prepared(request, style)
        if (number := several.wanted(ready.request, model.parallel)) > 1:
            await self._several(exchange, model, style, ready, number)
            return
        same = splice(body, seen, model.name) if ready.request == request else b""
        if same and ready.cleaner is None and ready.num_ctx is None and not ready.headers:
            await self._proxy.infer(exchange, body)
            return
        await self._send(exchange, model, style, ready, same=same)

    async def ask(
        self,
        exchange: Exchange,
        model: ModelSettings,
        request: dict[str, Any],
        translate: Translate,
        *,
        budget: int | None = None,
        keep_alive_s: float | None = None,
    ) -> None:
        """Has `model` answer a chat request that another dialect made; `translate` is over OpenAI's events.

        `budget` bounds its thoughts, in tokens. Raises CallerError, and whatever forwarding raises.
        """
        style = await self._traits.of(model)
        ready = prepared({**request, "model": model.name}, style, budget=budget)
        await self._send(exchange, model, style, ready, translate, keep_alive_s)

    async def count(self, exchange: Exchange, model: ModelSettings, request: dict[str, Any]) -> int:
        """How many tokens the prompt of a chat request has, as its own engine counts them. Raises as `ask` does."""
        ready = prepared({**request, "model": model.name}, await self._traits.of(model))
        if model.engine == "vllm":
            counted = await self._question(exchange, model, b"/tokenize", for_vllm.counting(ready.request))
            return int(counted.get("count") or 0)
        rendered = await self._question(exchange, model, b"/apply-template", ready.request)
        prompt = {"content": rendered.get("prompt", ""), "add_special": True, "parse_special": True}
        found = await self._question(exchange, model, b"/tokenize", prompt)
        return len(found.get("tokens") or ())

    async def _question(
        self, exchange: Exchange, model: ModelSettings, path: bytes, body: dict[str, Any]
    ) -> dict[str, Any]:
        status, said = await self._proxy.ask(exchange, model.name, path, json.dumps(body).encode())
        answer = chat.parsed(said)
        if status >= 400 or answer is None:
            raise chat.refusal(status, answer, said)
        return answer

    async def _several(
        self, exchange: Exchange, model: ModelSettings, style: Style, ready: Prepared, number: int
    ) -> None:
        from corral.gateway.api.several_answers import answer_several  # few ask for it

        async def send(part: Exchange, request: dict[str, Any]) -> None:
            await self._send(part, model, style, ready._replace(request=request))

        await answer_several(exchange, self._proxy.gate, model.name, ready.request, number, send)

    async def _send(
        self,
        exchange: Exchange,
        model: ModelSettings,
        style: Style,
        ready: Prepared,
        translate: Translate | None = None,
        keep_alive_s: float | None = None,
        same: bytes = b"",
    ) -> None:
        """`same`: the request's own bytes, where nothing in it is to be changed."""
        exchange.extra = [*exchange.extra, *ready.headers]
        if model.engine == "vllm" and not same:
            shaped, ignored = for_vllm.shaped(ready.request)
            ready = ready._replace(request=shaped)
            if ignored:
                exchange.extra = [*exchange.extra, (b"x-corral-ignored-options", ", ".join(ignored).encode())]

        async def send(request: dict[str, Any], body: bytes = b"") -> None:
            await self._proxy.forward(
                exchange,
                model.name,
                PATH,
                body or json.dumps(request).encode(),
                again=True,
                identity=True,
                stream=request.get("stream") is True,
                method="POST",
                keep_alive_s=keep_alive_s,
                translate=self._translations(exchange, ready, translate),
            )

        try:
            await send(ready.request, same)
        except Unparsed:
            again = bare(ready.request) if style.cleaner == "harmony" and not exchange.answering else None
            if again is None:
                raise
            ready = ready._replace(prefill=CHANNEL)
            await send(again)

    def _translations(self, exchange: Exchange, ready: Prepared, outer: Translate | None) -> Translate:
        def make(lease: Lease) -> Translation:
            if ready.num_ctx is not None:
                tell_context(exchange, ready.num_ctx, self._context(lease))
            made: list[Callable[[], Translation]] = []
            if (cleaner := ready.cleaner) is not None:
                made.append(lambda: Cleaned(cleaner, ready.prefill))
            if ready.bound:
                made.append(lambda: Called(request_ids.new_request_id().decode()[4:]))
            if outer is not None:
                made.append(lambda: outer(lease))
            if not made:
                return Unchanged()
            whole = made[0]()
            for each in made[1:]:
                whole = Chain(whole, each())
            return whole

        return make

    def _context(self, lease: Lease) -> int:
        return next((unit.context for unit in self._host.units() if unit.unit == lease.unit and unit.context), 0)


def tell_context(exchange: Exchange, asked: int, served: int) -> None:
    """The context is the engine's: a request can ask for more or less, and is told what there is."""
    text = b"asked=%d; served=%d" % (asked, served) if served else b"asked=%d" % asked
    kept = [field for field in exchange.extra if field[0] != b"x-corral-num-ctx"]
    exchange.extra = [*kept, (b"x-corral-num-ctx", text)]
