"""Ollama's routes that a model answers, and the lists of models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from corral import __version__, clock
from corral.config.settings import ModelSettings
from corral.errors import Forbidden, NotOffered
from corral.gateway.answer import send_json, send_text
from corral.gateway.api.anthropic_routes import anthropic_routes
from corral.gateway.api.chat_route import Chat, tell_context
from corral.gateway.api.inference import Inference
from corral.gateway.api.ollama_manage import OllamaManage
from corral.gateway.api.ollama_models import OllamaModels
from corral.gateway.api.openai_routes import openai_routes
from corral.gateway.dialects.chain import Unchanged
from corral.gateway.dialects.dialect import Translation
from corral.gateway.dialects.ollama import asked, embed, facts
from corral.gateway.dialects.ollama.answer import Answer, Loaded, chat_piece, plain_piece, rendered
from corral.gateway.dialects.ollama.chat import PATH, Wanted, read_chat
from corral.gateway.dialects.ollama.errors import JSON, OLLAMA, engine_error, unsupported
from corral.gateway.dialects.ollama.generate import read_generate
from corral.gateway.dialects.ollama.table import REFUSED, VERSION
from corral.gateway.dialects.ollama.times import Times
from corral.gateway.exchange import Exchange, Gathered
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Handler, Match, Route
from corral.scheduler.lease import Lease

_OTHERS = ("/v1/audio/transcriptions", "/v1/messages", "/v1/messages/count_tokens")


def ollama_routes(host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat) -> list[Route]:
    """All of Ollama's routes, OpenAI's and Anthropic's `/v1` among them as its own server has it."""
    known = OllamaModels(host, models)
    ollama = Ollama(host, proxy, known, chat)
    routes = [*ollama.routes(), *OllamaManage(host, models, known).routes()]
    others = [route for route in Inference(host, proxy, chat).routes() if route.path.startswith("/v1/")]
    for route in (*openai_routes(host, proxy, chat), *anthropic_routes(host, proxy, chat)):
        if route.path in _OTHERS or route.path.startswith("/v1/responses"):
            others.append(route)
    return [*routes, *others]


class Ollama:
    """Their handlers."""

    def __init__(self, host: Host, proxy: Proxy, known: OllamaModels, chats: Chat) -> None:
        self._host, self._proxy, self._known, self._chats = host, proxy, known, chats

    def routes(self) -> list[Route]:
        infer = [("chat", self._chat), ("generate", self._generate), ("embed", self._embed)]
        return [
            _route("GET", "/", self._greeting, scope=None),
            _route("GET", "/api/version", self._version, scope=None),
            _route("GET", "/api/status", self._status, scope=None),
            _route("GET", "/api/tags", self._tags),
            _route("GET", "/api/ps", self._ps),
            _route("POST", "/api/show", self._show),
            *(_route("POST", f"/api/{verb}", handler, large=True, counted=True) for verb, handler in infer),
            _route("POST", "/api/embeddings", self._embeddings, large=True, counted=True),
            *(_route(row.method, row.path, _refuse(row.path, row.words), scope=None) for row in REFUSED),
        ]

    # Lists

    async def _greeting(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_text(exchange, b"Ollama is running")

    async def _version(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"version": VERSION, "corral": __version__})

    async def _status(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"cloud": {"disabled": True, "source": "config"}})

    async def _tags(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, facts.tags(await self._known.all(exchange.caller)))

    async def _ps(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, facts.running(await self._known.running(exchange.caller), clock.wall()))

    async def _show(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = asked.read(body)
        name = asked.model(given)
        found = await self._known.look(name, exchange.listener_default)
        if not self._known.allows(exchange.caller, found[0]):
            raise Forbidden(f"this key is not for {found[0]}", hint="ask whoever made it, or use one of its own models")
        made = facts.card(name or found[0], found[1], verbose=asked.flag(given, "verbose", False))
        await send_json(exchange, made)

    # Answers

    async def _chat(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._answer(exchange, read_chat(await _read(body)), chat=True)

    async def _generate(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._answer(exchange, read_generate(await _read(body)), chat=False)

    async def _answer(self, exchange: Exchange, wanted: Wanted, *, chat: bool) -> None:
        times = _times()
        model = await self._known.find(wanted.model, exchange.listener_default, exchange.caller)
        name = wanted.model or model.name
        if wanted.body is None:
            await self._load(exchange, model, wanted, name, times, chat=chat)
            return
        await self._check(model, name, wanted, "chat" if chat else "generate")
        if model.engine != "llama.cpp" and (wanted.path != PATH or wanted.render_only):
            raise NotOffered(
                f"{name} is served by {model.engine}, which takes no raw prompts, templates or gaps to fill here",
                hint="leave raw, template and suffix out, or use /v1/completions",
            )
        if wanted.render_only:
            await self._render(exchange, model, wanted, name, times)
            return
        if wanted.options.ignored:
            _say(exchange, b"x-corral-ignored-options", ", ".join(wanted.options.ignored))
        read = chat_piece if wanted.path == PATH else plain_piece

        num_ctx = wanted.options.num_ctx

        def translate(lease: Lease) -> Translation:
            if wanted.path != PATH and num_ctx is not None:
                tell_context(exchange, num_ctx, self._context(lease))
            return Answer(name, times, lease.load_ms, read, chat=chat, tops=wanted.tops, remember=wanted.remember)

        if wanted.path == PATH:
            sized = {"num_ctx": num_ctx} if num_ctx is not None and num_ctx > 0 else {}
            await self._chats.ask(
                exchange, model, {**wanted.body, **sized}, translate, keep_alive_s=wanted.keep_alive_s
            )
            return
        await self._proxy.forward(
            exchange, model.name, wanted.path, json.dumps(wanted.body).encode(), again=True, identity=True,
            stream=wanted.stream, keep_alive_s=wanted.keep_alive_s, translate=translate,
        )  # fmt: skip

    async def _render(self, exchange: Exchange, model: ModelSettings, wanted: Wanted, name: str, times: Times) -> None:
        """What the model would be given."""
        assert wanted.body is not None
        text = wanted.body.get("prompt")
        if wanted.path == PATH:
            status, said = await self._proxy.ask(
                exchange, model.name, b"/apply-template", json.dumps({**wanted.body, "stream": False}).encode()
            )
            if status >= 400:
                status, refusal = engine_error(status, said)
                await exchange.respond(status, [(b"content-type", JSON)], refusal)
                return
            text = json.loads(said).get("prompt", "")
        await send_json(exchange, rendered(name, times, text or ""))

    async def _load(
        self, exchange: Exchange, model: ModelSettings, wanted: Wanted, name: str, times: Times, *, chat: bool
    ) -> None:
        """A request without a prompt: its model is loaded, or let go at once."""
        unload = wanted.keep_alive_s == 0
        reason = "unload" if unload else "load"

        def translate(lease: Lease) -> Translation:
            return Loaded(name, times, lease.load_ms, chat=chat, reason=reason)

        if unload and not any(unit.model == model.name and unit.state == "ready" for unit in self._host.units()):
            status, made = Loaded(name, times, 0.0, chat=chat, reason=reason).body(200, b"")
            await exchange.respond(status, [(b"content-type", JSON)], made)
            return
        await self._proxy.forward(
            exchange, model.name, b"/health", b"", again=True, identity=True, method="GET",
            keep_alive_s=wanted.keep_alive_s, translate=translate,
        )  # fmt: skip

    async def _check(self, model: ModelSettings, name: str, wanted: Wanted, verb: str) -> None:
        """Raises CallerError when the model cannot do what is wanted of it, as far as that is known."""
        if not (able := await self._known.able(model)):
            return  # its start will say what is wrong
        for need in wanted.needs:
            if need not in able and (need != "completion" or "embedding" in able):
                raise unsupported(name, verb if need == "completion" else need)

    def _context(self, lease: Lease) -> int:
        return next((unit.context for unit in self._host.units() if unit.unit == lease.unit), 0)

    # Embeddings

    async def _embed(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._embedded(exchange, embed.read_embed(await _read(body)))

    async def _embeddings(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._embedded(exchange, embed.read_embeddings(await _read(body)))

    async def _embedded(self, exchange: Exchange, wanted: embed.Wanted) -> None:
        times = _times()
        model = await self._known.find(wanted.model, exchange.listener_default, exchange.caller)
        ask = _Asking(self._proxy, exchange, model.name, wanted.keep_alive_s)
        if not wanted.inputs:
            status, answer = await ask(b"/health", b"", method="GET")
            empty: dict[str, Any] = {"embedding": []}
            made = empty if wanted.legacy else embed.made(wanted.model, [], 0, times, ask.load_ms)
            await send_json(exchange, made if status == 200 else json.loads(answer), status)
            return
        status, answer = await ask(embed.PATH, wanted.body(wanted.inputs))
        if wanted.truncate and embed.is_too_long(status, answer):
            shorter = await self._shortened(ask, wanted.inputs, answer)
            _say(exchange, b"x-corral-note", "inputs longer than the context were cut; truncate: false refuses them")
            status, answer = await ask(embed.PATH, wanted.body(shorter))
        if status >= 400 and not embed.is_too_long(status, answer):
            await self._check_embeds(model, wanted.model or model.name)
        status, made = embed.answered(wanted, status, answer, times, ask.load_ms)
        await send_json(exchange, made, status)

    async def _shortened(self, ask: _Asking, inputs: list[str], refusal: bytes) -> list[Any]:
        """`inputs` as tokens, none longer than what the engine can take at once."""
        limit = embed.limit(refusal) or next(
            (unit.context for unit in self._host.units() if unit.unit == ask.unit and unit.context), 512
        )
        found = []
        for each in inputs:
            wants = {"content": each, "prompt": each, "add_special": True, "parse_special": False}
            status, answer = await ask(b"/tokenize", json.dumps(wants).encode())
            found.append(embed.cut(status, answer, limit))
        return found

    async def _check_embeds(self, model: ModelSettings, name: str) -> None:
        able = await self._known.able(model)
        if able and "embedding" not in able:
            raise unsupported(name, "embeddings")


class _Asking:
    """Questions to one model on behalf of one exchange; remembers the unit that answered and what loading took."""

    def __init__(self, proxy: Proxy, exchange: Exchange, model: str, keep_alive_s: float | None) -> None:
        self._proxy, self._exchange, self._model, self._keep_alive_s = proxy, exchange, model, keep_alive_s
        self.load_ms = 0.0
        self.unit = ""

    async def __call__(self, path: bytes, body: bytes, method: str = "POST") -> tuple[int, bytes]:
        def heard(lease: Lease) -> Translation:
            self.load_ms = max(self.load_ms, lease.load_ms)
            self.unit = lease.unit
            return Unchanged()

        gathered = Gathered(self._exchange)
        await self._proxy.forward(
            gathered, self._model, path, body, again=True, identity=True, method=method,
            keep_alive_s=self._keep_alive_s, translate=heard,
        )  # fmt: skip
        return gathered.status, gathered.answer


def _route(method: str, path: str, handler: Handler, **more: Any) -> Route:
    return Route(method, path, handler, dialect=OLLAMA, **{"scope": "infer", **more})


def _refuse(path: str, words: str) -> Handler:
    async def handle(exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotOffered(f"{path} is not offered here", hint=words)

    return handle


async def _read(body: bytes) -> dict[str, Any]:
    return asked.read(body) if len(body) < 256 << 10 else await asyncio.to_thread(asked.read, body)


def _times() -> Times:
    began = clock.monotonic()
    elapsed: Callable[[], float] = lambda: clock.monotonic() - began  # noqa: E731
    return Times(clock.wall, elapsed)


def _say(exchange: Exchange, name: bytes, words: str) -> None:
    """One more field of the answer, once."""
    field = (name, " ".join(words.split()).encode("ascii", "replace")[:500])
    if field not in exchange.extra:
        exchange.extra = [*exchange.extra, field]
