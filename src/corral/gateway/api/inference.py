"""The routes that engines answer, and the lists and health checks around them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote_to_bytes

from corral.access.engine_paths import scope_of
from corral.config.settings import ModelSettings, Settings
from corral.errors import CallerError, Forbidden, Stopping
from corral.gateway.answer import send_json, send_text
from corral.gateway.api.chat_route import Chat
from corral.gateway.control.page import greeting
from corral.gateway.dialects import openai
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Caller, may_not
from corral.gateway.host import Host
from corral.gateway.named import parameter
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Doc, Match, Route

CHAT = "/v1/chat/completions"
_RELAYED = (
    "/v1/completions",
    "/v1/embeddings",
    "/rerank",
    "/v1/rerank",
    "/reranking",
    "/v1/reranking",
    "/tokenize",
    "/detokenize",
    "/apply-template",
)
INFERENCE_PATHS = (CHAT, *_RELAYED)
"""POST routes that go to the engine under the same path; sending such a request twice does no harm."""

_SLEEP = b"/sleep"

_HEALTH = Doc("Is it alive", dict[str, str], tag="health")
_READY = Doc("Does it take new work", dict[str, str], tag="health", errors=(Stopping,))


class Inference:
    """Their handlers, over one host and one proxy."""

    def __init__(self, host: Host, proxy: Proxy, chat: Chat) -> None:
        self._host = host
        self._proxy = proxy
        self._chat = chat

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                CHAT,
                self._ask,
                large=True,
                direct=True,
                plain_until=self._chat.plain_until,
                scope="infer",
                counted=True,
            ),
            *(
                Route("POST", path, self._infer, large=True, direct=True, scope="infer", counted=True)
                for path in _RELAYED
            ),
            Route("GET", "/v1/models", self._models, scope="infer"),
            Route("GET", "/v1/models/{model}", self._model, scope="infer"),
            Route("*", "/upstream/{model}", self._upstream, large=True, scope="infer", counted=True),
            Route("GET", "/health", self._health, _HEALTH, scope=None),
            Route("GET", "/ready", self._ready, _READY, scope=None),
            Route("GET", "/", self._greeting, scope=None),
        ]

    async def _ask(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._chat.answer(exchange, body)

    async def _infer(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._proxy.infer(exchange, body)

    async def _upstream(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if (exchange.header(b"upgrade") or b"").lower() == b"websocket":
            raise CallerError("websockets are not relayed", hint="use plain HTTP; streams come as server-sent events")
        rest = exchange.raw_path.removeprefix(b"/upstream/")
        model, path = await split_upstream(rest, self._host, parameter(exchange, "model"), exchange.caller)
        need = scope_of(exchange.method, unquote_to_bytes(path).decode("utf-8", "replace"))
        if exchange.caller is not None and not exchange.caller.may(need):
            raise Forbidden(
                f"this path of an engine needs a key with the scope {need}", hint="use another key", scope=need
            )
        target = path + b"?" + exchange.query if exchange.query else path
        again = path.decode("latin-1") in INFERENCE_PATHS
        await self._proxy.forward(exchange, model.name, target, body, again=again)
        if need == "admin" and model.engine == "vllm" and path.rstrip(b"/").endswith(_SLEEP):
            self._host.reached(model.name)

    async def _models(self, exchange: Exchange, match: Match, body: bytes) -> None:
        entries = await self.entries(exchange)
        if exchange.header(b"anthropic-version") is not None:
            from corral.gateway.api.anthropic_routes import send_models  # loaded by those whose clients are Anthropic's

            await send_models(exchange, entries)
            return
        await send_json(exchange, {"object": "list", "data": entries})

    async def entries(self, exchange: Exchange) -> list[dict[str, Any]]:
        """Every model that the caller may name, in OpenAI's shape."""
        settings, stored = self._host.settings, dict(await self._host.stored_names())
        entries = openai.with_meta(await asyncio.to_thread(_entries, settings, stored), self._host.units())
        served = {entry["id"] for entry in entries}
        entries += openai.stored_entries((name, at) for name, at in stored.items() if name not in served)
        if (caller := exchange.caller) is not None:
            entries = [each for each in entries if caller.may_use(self._all_names(each))]
        return entries

    def _all_names(self, entry: dict[str, Any]) -> tuple[str, ...]:
        name = entry.get("alias_of", entry["id"])
        known = self._host.settings.models
        model = known.get(name) or next((each for each in known.values() if name in each.aliases), None)
        return (entry["id"],) if model is None else (model.name, *model.aliases)

    async def _model(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if exchange.header(b"anthropic-version") is not None:
            from corral.gateway.api.anthropic_routes import send_model

            await send_model(exchange, self, match.rest)
            return
        await send_json(exchange, await self.entry(match.rest, exchange.caller))

    async def entry(self, name: str, caller: Caller | None) -> dict[str, Any]:
        """One model in OpenAI's shape. Raises Forbidden, UnknownModel."""
        if caller is not None and not caller.may_use(self._all_names({"id": name})):
            raise may_not(name)
        stored = dict(await self._host.stored_names())
        if name in stored and name not in _names(self._host.settings):
            return openai.stored_entries([(name, stored[name])])[0]
        model = self._host.resolve(name)
        created = await asyncio.to_thread(_created, model, stored)
        entries = openai.with_meta(openai.model_entries([(model, created)]), self._host.units())
        return next((entry for entry in entries if entry["id"] == name), entries[0])

    async def _health(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"status": "ok"})

    async def _ready(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if not self._host.ready:
            raise Stopping("Corral takes no new work", hint="it is starting or shutting down", retry_after_s=1)
        await send_json(exchange, {"status": "ready"})

    async def _greeting(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_text(exchange, greeting().encode(), "text/html; charset=utf-8")


async def split_upstream(
    rest: bytes, host: Host, asked: str | None = None, caller: Caller | None = None
) -> tuple[ModelSettings, bytes]:
    """`model/path…` as the model and the engine's path, still percent-encoded; the longest known name wins. Where it
    begins with none, it is the path of the model `asked`.

    Raises CallerError for a path with `..` in it, UnknownModel.
    """
    name, path = await name_upstream(rest, host)
    if name is not None:
        return await host.find(name, None, caller), path
    if asked is not None:
        return await host.find(asked, None, caller), b"/" + rest
    return host.resolve(unquote_to_bytes(rest.split(b"/")[0]).decode("utf-8", "replace") or "/"), b"/"


async def name_upstream(rest: bytes, host: Host) -> tuple[str | None, bytes]:
    """The known name with which `rest` begins, and what follows. Raises CallerError for a path with `..` in it."""
    segments = rest.split(b"/")
    decoded = [unquote_to_bytes(segment).decode("utf-8", "replace") for segment in segments]
    if any(part in (".", "..") for segment in decoded for part in segment.replace("\\", "/").split("/")):
        raise CallerError("the path has a `.` or `..` segment", hint="write the engine's path without them")
    for known in (_names(host.settings), None):
        known = {name for name, _ in await host.stored_names()} if known is None else known
        for count in range(len(segments), 0, -1):
            name = "/".join(decoded[:count])
            if name in known:
                return name, b"/" + b"/".join(segments[count:])
    return None, b"/" + rest


def _names(settings: Settings) -> set[str]:
    return {name for model in settings.models.values() for name in (model.name, *model.aliases)}


def _entries(settings: Settings, stored: dict[str, float]) -> list[dict[str, object]]:
    return openai.model_entries((model, _created(model, stored)) for model in settings.models.values())


def _created(model: ModelSettings, stored: dict[str, float]) -> int:
    """When its file was made, or came into the store; 0 where it is not here."""
    if model.ref is not None:
        return int(stored.get(model.ref.name, 0.0))
    try:
        return int(model.source.stat().st_mtime)
    except OSError:
        return 0
