"""Docker Model Runner's routes: those that a model answers, and what else of its API is here."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from corral import __version__
from corral.errors import MethodNotAllowed, MissingModel, NotFound, NotJson, NotOffered
from corral.gateway.answer import send_json, send_text
from corral.gateway.api.anthropic_routes import anthropic_routes
from corral.gateway.api.chat_route import Chat
from corral.gateway.api.docker_engines import DockerEngines
from corral.gateway.api.docker_manage import DockerManage
from corral.gateway.api.docker_models import DockerModels
from corral.gateway.api.inference import Inference
from corral.gateway.api.openai_routes import openai_routes
from corral.gateway.control.access import AccessHost
from corral.gateway.dialects.anthropic.errors import ANTHROPIC
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.dialects.docker import shapes
from corral.gateway.dialects.docker.errors import DOCKER, INFERENCE
from corral.gateway.dialects.docker.table import REFUSED, VERSION
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.path.peek import peek, splice
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Handler, Match, Route, Table

_LARGE_BYTES = 256 << 10  # from this size on a body is looked at in a thread
_BARE = ("/rerank", "/score")
_ROOT = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations", "/v1/messages",
    "/v1/messages/count_tokens",
)  # fmt: skip
_PRELOAD = b"x-preload-only"


def docker_routes(
    host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat, access: AccessHost | None = None
) -> list[Route]:
    """All of them."""
    known = DockerModels(host, models)
    inner = [*openai_routes(host, proxy, chat), *anthropic_routes(host, proxy, chat)]
    inner += [route for route in Inference(host, proxy, chat).routes() if route.path == "/rerank"]
    docker = Docker(host, proxy, known, Table(inner))
    return [*docker.routes(), *DockerManage(host, models, known).routes(),
            *DockerEngines(host, models, known, access).routes()]  # fmt: skip


class Docker:
    """The handlers of what a model answers; `inner` are the routes of other dialects that stand under `/engines`."""

    def __init__(self, host: Host, proxy: Proxy, known: DockerModels, inner: Table) -> None:
        self._host, self._proxy, self._known, self._inner = host, proxy, known, inner

    def routes(self) -> list[Route]:
        return [
            _route("GET", "/", self._greeting, None),
            _route("GET", "/version", self._version, None),
            *(_infer("POST", path, self._direct) for path in (*_ROOT, *_BARE)),
            _infer("GET", "/v1/models", self._direct),
            _infer("GET", "/v1/models/{name}", self._direct),
            _infer("*", "/v1/responses", self._direct),
            _infer("*", "/v1/responses/{id}", self._direct),
            _infer("*", "/responses", self._bare),
            _infer("*", "/responses/{id}", self._bare),
            replace(_infer("*", "/anthropic/{path}", self._anthropic), dialect=ANTHROPIC),
            _infer("*", "/engines/{path}", self._engines),
            *(_route(row.method, row.path, _refuse(row.path, row.words), None) for row in REFUSED),
        ]

    async def _greeting(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_text(exchange, b"Docker Model Runner is running")

    async def _version(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"version": VERSION, "corral": __version__})

    async def _direct(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._pass_on(exchange, exchange.path, body)

    async def _bare(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._pass_on(exchange, f"/v1{exchange.path}", body)

    async def _anthropic(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._pass_on(exchange, exchange.path.removeprefix("/anthropic"), body, ANTHROPIC)

    async def _engines(self, exchange: Exchange, match: Match, body: bytes) -> None:
        path = "/" + match.rest
        backend, _, rest = match.rest.partition("/")
        if backend in shapes.BACKENDS:
            path = "/" + rest  # as Docker does, the model decides which engine it is
        if path.startswith("/responses"):
            path = "/v1" + path
        if not path.startswith("/v1/") and path not in _BARE:
            exchange.dialect = DOCKER
            raise NotFound(
                f"there is nothing at {exchange.path[:200]}",
                hint="after /engines comes v1/…, or one of " + ", ".join(shapes.BACKENDS),
            )
        await self._pass_on(exchange, path, body)

    async def _pass_on(self, exchange: Exchange, path: str, body: bytes, where: Dialect = DOCKER) -> None:
        """Has the route of another dialect at `path` answer, under the model's own name; `where` tells that there is
        none."""
        if path == "/v1/models":
            await send_json(exchange, shapes.openai_models(await self._known.entries(exchange.caller)))
            return
        if path == "/score":
            raise NotOffered("/score is not offered", hint="/rerank gives a score for each document")
        try:
            match = self._inner.match(exchange.method, path)
        except (NotFound, MethodNotAllowed):
            exchange.dialect = where
            raise
        exchange.dialect = match.route.dialect
        if path.startswith("/v1/models/"):
            entry, name = await self._known.locate(path.removeprefix("/v1/models/"), exchange.caller)
            await send_json(exchange, shapes.openai_model(entry, name or entry.names[0]))
            return
        if exchange.method == "POST" and body:
            try:
                body, model = await self._named(exchange, body)
            except NotJson:
                model = None  # the route itself says what is wrong with it
            if model is not None and (exchange.header(_PRELOAD) or b"").lower() == b"true":
                await self._preload(exchange, model)
                return
        exchange.path, exchange.raw_path = path, path.encode()
        await match.route.handler(exchange, match, body)

    async def _named(self, exchange: Exchange, body: bytes) -> tuple[bytes, str | None]:
        """`body` with the model's own name in it, and that name; as it is where it names none."""
        seen = peek(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(peek, body)
        try:
            model = await self._known.find(seen.model, exchange.listener_default, exchange.caller)
        except MissingModel:
            return body, None
        return (body if seen.model == model.name else splice(body, seen, model.name)), model.name

    async def _preload(self, exchange: Exchange, model: str) -> None:
        status, answer = await self._proxy.ask(exchange, model, b"/health", b"", method="GET")
        await exchange.respond(status, [], b"" if status == 200 else answer)


def _route(method: str, path: str, handler: Handler, scope: Any) -> Route:
    return Route(method, path, handler, dialect=DOCKER, scope=scope)


def _infer(method: str, path: str, handler: Handler) -> Route:
    return Route(method, path, handler, dialect=INFERENCE, scope="infer", large=True, counted=True)


def _refuse(path: str, words: str) -> Handler:
    async def refuse(exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotOffered(f"{path} is not offered", hint=words)

    return refuse
