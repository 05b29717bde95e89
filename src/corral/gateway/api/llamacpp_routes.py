"""llama.cpp's routes that an engine answers, and those that nobody does."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from corral import __version__
from corral.access.engine_paths import scope_of
from corral.config.settings import ModelSettings
from corral.errors import CallerError, FeatureDisabled, NotFound, NotJson, NotOffered, UnknownModel
from corral.gateway.answer import send_json
from corral.gateway.api.anthropic_routes import anthropic_routes
from corral.gateway.api.chat_route import PATH, Chat
from corral.gateway.api.inference import Inference, name_upstream
from corral.gateway.api.llamacpp_manage import LlamaCppManage
from corral.gateway.api.openai_routes import openai_routes
from corral.gateway.dialects.llamacpp import router
from corral.gateway.dialects.llamacpp.errors import LLAMACPP
from corral.gateway.dialects.llamacpp.table import CHANGED, DISABLED, LOOKED_AT, REFUSED, RELAYED
from corral.gateway.dialects.multipart import field
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Scope, may_not
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.named import named, parameter
from corral.gateway.path.peek import peek
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Handler, Match, Route

_OTHERS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/audio/transcriptions")
_LOADING = {("GET", "/props"), *((row.method, row.path) for row in (*LOOKED_AT, *CHANGED))}
_UPSTREAM = b"/upstream/"
_OWN_LISTS = ("/v1/models", "/v1/models/{model}", "/ready")


def llamacpp_routes(host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat, heartbeat_s: float) -> list[Route]:
    """All of llama.cpp's routes, OpenAI's and Anthropic's `/v1` among them as its own server has them."""
    inference = Inference(host, proxy, chat)
    llamacpp = LlamaCpp(host, proxy, chat)
    always = [
        route if route.path.startswith("/v1/") else replace(route, dialect=LLAMACPP)
        for route in inference.routes()
        if route.path not in _OWN_LISTS
    ]
    others = [
        route
        for route in (*openai_routes(host, proxy, chat), *anthropic_routes(host, proxy, chat))
        if route.path in _OTHERS or route.path.startswith("/v1/responses")
    ]
    asking = [*llamacpp.routes(), *always, *others]
    asking = [replace(each, before=llamacpp.may_load) if _loads(each) else each for each in asking]
    return [*asking, *LlamaCppManage(host, models, inference, heartbeat_s).routes()]


def _loads(route: Route) -> bool:
    """Whether a request to it has its model loaded."""
    return route.counted or (route.method, route.path) in _LOADING


class LlamaCpp:
    """Their handlers."""

    def __init__(self, host: Host, proxy: Proxy, chat: Chat) -> None:
        self._host, self._proxy, self._chats = host, proxy, chat

    def routes(self) -> list[Route]:
        def route(
            method: str, path: str, handler: Handler, scope: Scope | None, *, large: bool = False, direct: bool = False
        ) -> Route:
            return Route(
                method, path, handler, dialect=LLAMACPP, scope=scope, large=large, direct=direct, counted=direct
            )

        return [
            *(route(row.method, row.path, self._relay, "infer", large=True, direct=True) for row in RELAYED),
            replace(
                route("POST", "/chat/completions", self._chat, "infer", large=True, direct=True),
                plain_until=self._chats.plain_until,
            ),
            route("GET", "/props", self._props, scope_of("GET", "/props")),
            *(route(row.method, row.path, self._look, scope_of(row.method, row.path)) for row in LOOKED_AT),
            *(route(row.method, row.path, self._change, "admin") for row in CHANGED),
            route("GET", "/v1/health", self._health, None),
            route("GET", "/favicon.ico", self._icon, None),
            route("GET", "/v1/stream", self._no_stream, "infer"),
            route("GET", "/v1/stream/{id}", self._no_stream, "infer"),
            route("DELETE", "/v1/stream", self._forget_stream, "infer"),
            route("DELETE", "/v1/stream/{id}", self._forget_stream, "infer"),
            route("POST", "/v1/streams/lookup", self._streams, "infer"),
            *(route(row.method, row.path, _refuse(row.path, row.words), None, large=True) for row in REFUSED),
        ]  # fmt: skip

    async def _relay(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._proxy.infer(exchange, body)

    async def _chat(self, exchange: Exchange, match: Match, body: bytes) -> None:
        exchange.raw_path = PATH
        await self._chats.answer(exchange, body)

    async def _props(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if parameter(exchange, "model") or exchange.listener_default is not None:
            await self._look(exchange, match, body)
        else:
            await send_json(exchange, router.props(__version__, self._host.settings.max_active))

    async def _look(self, exchange: Exchange, match: Match, body: bytes) -> None:
        """What a model's engine tells at the same path; the query says which model."""
        model = await self._host.find(named(exchange, None), exchange.listener_default, exchange.caller)
        await self._proxy.forward(exchange, model.name, _target(exchange), b"", again=False, identity=True)

    async def _change(self, exchange: Exchange, match: Match, body: bytes) -> None:
        """The same for what changes the engine: the body may name the model, where it is an object."""
        model = await self._host.find(named(exchange, _in_body(body)), exchange.listener_default, exchange.caller)
        await self._proxy.forward(exchange, model.name, _target(exchange), body, again=False, identity=True)

    async def may_load(self, exchange: Exchange, match: Match, body: bytes) -> None:
        """Raises CallerError when the client wants nothing loaded and its model is not, and what tells that there is no
        such model. The fast path need not ask: it takes units that are ready."""
        if (parameter(exchange, "autoload") or "true").lower() in ("true", "1"):
            return
        name = await self._asked(exchange, body)
        if name is None and exchange.path == "/props" and exchange.listener_default is None:
            return  # the router's own
        model = await self._known(name, exchange)
        if not any(unit.model == model.name and unit.state in ("ready", "sleeping") for unit in self._host.units()):
            raise CallerError("model is not loaded", hint="POST /models/load, or leave autoload out", model=model.name)

    async def _asked(self, exchange: Exchange, body: bytes) -> str | None:
        """What the request calls its model, wherever it says that."""
        if exchange.raw_path.startswith(_UPSTREAM):
            rest = exchange.raw_path.removeprefix(_UPSTREAM)
            name, _ = await name_upstream(rest, self._host)
            return name or parameter(exchange, "model") or unquote(rest.split(b"/")[0])
        return named(exchange, _in_body(body) or field(exchange.header(b"content-type") or b"", body, b"model"))

    async def _known(self, name: str | None, exchange: Exchange) -> ModelSettings:
        """The model, configured or in the store; nothing is fetched. Raises Forbidden where it is not the caller's."""
        caller = exchange.caller
        try:
            model = await self._host.known(name) if name else self._host.resolve(None, exchange.listener_default)
        except UnknownModel:
            if name and caller is not None and not caller.may_use((name,)):
                raise may_not(name) from None
            raise
        if caller is not None and not caller.may_use((model.name, *model.aliases)):
            raise may_not(name or model.name)
        return model

    async def _icon(self, exchange: Exchange, match: Match, body: bytes) -> None:
        from corral.gateway.control.page import ICON

        head = [(b"content-type", b"image/svg+xml"), (b"cache-control", b"max-age=86400")]
        await exchange.respond(200, head, ICON.encode())

    async def _health(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"status": "ok"})

    async def _no_stream(self, exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotFound("Stream not found or expired", hint="an answer ends when its client leaves: ask again")

    async def _forget_stream(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await exchange.respond(204, [])

    async def _streams(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, [])


def _target(exchange: Exchange) -> bytes:
    return exchange.raw_path + b"?" + exchange.query if exchange.query else exchange.raw_path


def _in_body(body: bytes) -> str | None:
    """The model that a body names; None where it names none, or is something else."""
    try:
        return peek(body).model if body.lstrip()[:1] == b"{" else None
    except NotJson:
        return None


def _refuse(path: str, words: str) -> Handler:
    async def refuse(exchange: Exchange, match: Match, body: bytes) -> None:
        kind = FeatureDisabled if path in DISABLED else NotOffered
        raise kind(f"{path} is not offered here", hint=words)

    return refuse
