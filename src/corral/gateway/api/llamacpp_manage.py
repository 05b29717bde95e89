"""The routes of llama.cpp's router, and llama-swap's: what models there are, loading, unloading, fetching, the feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, TypeVar

from corral import __version__
from corral.api_store import DownloadAsk, DownloadInfo, PullAsk, RemoveAsk
from corral.errors import CallerError, Forbidden, InUse, NotJson, UnknownModel
from corral.gateway.answer import send_feed, send_json, send_text
from corral.gateway.api.inference import Inference
from corral.gateway.api.ollama_models import OllamaModels
from corral.gateway.api.told_work import the_store
from corral.gateway.dialects.llamacpp import feed, router
from corral.gateway.dialects.llamacpp.errors import LLAMACPP
from corral.gateway.dialects.ollama.table import VERSION
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Scope
from corral.gateway.host import Host
from corral.gateway.http import sse
from corral.gateway.models_host import ModelsHost
from corral.gateway.named import parameter
from corral.gateway.routes import Handler, Match, Route

T = TypeVar("T")


class LlamaCppManage:
    """Their handlers. What needs the store says so where there is none."""

    def __init__(self, host: Host, models: ModelsHost | None, inference: Inference, heartbeat_s: float) -> None:
        self._host, self._store, self._inference, self._heartbeat_s = host, models, inference, heartbeat_s
        self._files = OllamaModels(host, models)

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Handler, scope: Scope | None = "infer") -> Route:
            return Route(method, path, handler, dialect=LLAMACPP, scope=scope)

        return [
            route("GET", "/models", self._list),
            route("GET", "/v1/models", self._list),
            route("GET", "/v1/models/{model}", self._one),
            route("POST", "/models", self._fetch, "pull"),
            route("DELETE", "/models", self._remove, "admin"),
            route("POST", "/models/load", self._load),
            route("POST", "/models/unload", self._unload, "admin"),
            route("GET", "/models/sse", self._feed),
            route("GET", "/running", self._running),
            route("POST", "/api/models/unload", self._unload_all, "admin"),
            route("POST", "/api/models/unload/{model}", self._unload_one, "admin"),
            route("GET", "/api/version", self._version, None),
        ]

    @property
    def _models(self) -> ModelsHost:
        return the_store(self._store)

    # Lists

    async def _list(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, router.listed(await self._entries(exchange)))

    async def _one(self, exchange: Exchange, match: Match, body: bytes) -> None:
        entry = await self._inference.entry(match.rest, exchange.caller)
        name = entry.get("alias_of", entry["id"])
        known = {each["id"]: each for each in await self._entries(exchange)}
        if name not in known:
            raise UnknownModel(f"model '{match.rest}' not found", hint="GET /models lists them", model=match.rest)
        await send_json(exchange, known[name])

    async def _entries(self, exchange: Exchange) -> list[dict[str, Any]]:
        """Every model that the caller may name, and what is being fetched."""
        files = {
            name: router.About(
                facts.capabilities, facts.size, facts.parameters, facts.context_length, facts.embedding_length,
                facts.quantization,
            )
            for name, facts in await self._files.all()
        }  # fmt: skip
        states = {model.name: model.state for model in self._host.models()}
        served = {unit.model: unit.context for unit in self._host.units() if unit.state == "ready"}
        settings = self._host.settings.models
        found = [
            router.entry(
                base,
                states.get(base["id"], "stopped"),
                files.get(base["id"]),
                configured=base["id"] in settings and settings[base["id"]].ref is None,
                context=served.get(base["id"], 0),
            )
            for base in await self._inference.entries(exchange)
            if "alias_of" not in base
        ]
        if self._store is not None and (exchange.caller is None or exchange.caller.may("pull")):
            listed = {each["id"] for each in found}
            names = [each.name for each in await self._store.downloads() if not each.over]
            found += [router.downloading(name) for name in dict.fromkeys(names) if name not in listed]
        return found

    async def _running(self, exchange: Exchange, match: Match, body: bytes) -> None:
        units = [(unit.model, unit.state) for unit in self._host.units() if self._may_use(exchange, unit.model)]
        await send_json(exchange, router.running(units))

    async def _version(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"version": VERSION, "corral": __version__})

    def _may_use(self, exchange: Exchange, name: str) -> bool:
        model = self._host.settings.models.get(name)
        names = (name,) if model is None else (model.name, *model.aliases)
        return exchange.caller is None or exchange.caller.may_use(names)

    # Loading

    async def _load(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = _read(body)
        name = _named(given)
        if given.get("extra_args"):
            raise CallerError(
                "extra_args are not taken",
                hint="give the model its flags with `args` in models.yaml",
                param="extra_args",
            )
        model = await self._host.find(name, None, exchange.caller)
        if not self._may_use(exchange, model.name):
            raise Forbidden(f"this key may not use {name}", hint="GET /models lists what it may use", model=name)
        if any(unit.model == model.name and unit.state in _UNDER_WAY for unit in self._host.units()):
            raise CallerError("model is already running", hint="GET /models has its status", model=name)
        await self._host.start(model.name, wait=False)
        await send_json(exchange, {"success": True})

    async def _unload(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name = _named(_read(body))
        if (download := await self._download(name)) is not None:
            await self._models.pause(DownloadAsk(download.id))
        else:
            model = (await self._host.known(name)).name
            if not (await self._host.stop(model, wait=False)).changed:
                raise CallerError("model is not running", hint="GET /models has its status", model=name)
        await send_json(exchange, {"success": True})

    async def _unload_all(self, exchange: Exchange, match: Match, body: bytes) -> None:
        for model in dict.fromkeys(unit.model for unit in self._host.units()):
            await self._host.stop(model, wait=False)
        await send_text(exchange, b"OK")

    async def _unload_one(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await self._host.stop((await self._host.known(match.rest)).name, wait=False)
        await send_text(exchange, b"OK")

    # Fetching

    async def _fetch(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name = _named(_read(body))
        ref = router.reference(name)
        here = {each.name for each in await self._models.stored()}
        if name in here or ref in here:
            raise CallerError(
                f"model '{name}' already exists", hint="`corral update` fetches what is newer", model=name
            )
        await self._models.pull(PullAsk(ref))
        await send_json(exchange, {"success": True})

    async def _remove(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name = parameter(exchange, "model")
        if name is None:
            raise CallerError("model must be a non-empty string", hint="DELETE /models?model=NAME", param="model")
        if (download := await self._download(name)) is not None:
            await self._models.cancel(DownloadAsk(download.id))
        else:
            here = {each.name for each in await self._models.stored()}
            stored = next((each for each in (name, router.reference(name)) if each in here), None)
            if stored is None:
                model = self._host.resolve(name)
                hint = "change models.yaml" if model.ref is None else f"it is in the store as {model.ref.name}"
                raise CallerError(f"{model.name} is not removable (not of the store)", hint=hint, model=name)
            try:
                await self._models.remove(RemoveAsk([stored]))
            except InUse:
                await self._host.stop(stored)
                await self._models.remove(RemoveAsk([stored]))
        await send_json(exchange, {"success": True})

    async def _download(self, name: str) -> DownloadInfo | None:
        """The download that `name` means, unless it is over."""
        if self._store is None:
            return None
        names = {name, router.reference(name)}
        downloads = await self._store.downloads()
        return next((each for each in downloads if not each.over and names & {each.ref, each.name}), None)

    # The feed

    async def _feed(self, exchange: Exchange, match: Match, body: bytes) -> None:
        since = self._host.events.last_seq
        sources = [self._told(exchange, since)]
        if self._store is not None and (exchange.caller is None or exchange.caller.may("pull")):
            sources.append(self._told_of_downloads(self._store))
        await send_feed(exchange, _together(sources), self._heartbeat_s)

    async def _told(self, exchange: Exchange, since: int) -> AsyncIterator[bytes]:
        async for event in self._host.events.follow(since):
            if event.kind == "store.removed":
                for told in feed.removed(each for each in event.data.get("names", ()) if self._may_use(exchange, each)):
                    yield _event(told)
            if event.model is not None and not self._may_use(exchange, event.model):
                continue
            ready = [unit.model for unit in self._host.units() if unit.state == "ready"]
            said = feed.of_event(event, ready)
            if said is None:
                continue
            if said.get("data", {}).get("status") == "loaded":
                entries = {each["id"]: each for each in await self._entries(exchange)}
                if (entry := entries.get(said["model"])) is not None:
                    said["data"]["info"] = {key: value for key, value in entry.items() if key != "status"}
            yield _event(said)

    async def _told_of_downloads(self, models: ModelsHost) -> AsyncIterator[bytes]:
        downloads = feed.Downloads()
        async for each in models.follow_downloads():
            for told in downloads.more(each, each.ref.removeprefix("hf.co/")):
                yield _event(told)


_UNDER_WAY = ("starting", "loading", "ready", "sleeping")


async def _together(sources: list[AsyncIterator[T]]) -> AsyncIterator[T]:
    """What each of `sources` has, as it comes; ends with the first that ends."""
    tasks = {asyncio.ensure_future(_next(source)): source for source in sources}
    try:
        while True:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source, item = tasks.pop(task), task.result()
                if item is None:
                    return
                tasks[asyncio.ensure_future(_next(source))] = source
                yield item
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for source in sources:
            if (close := getattr(source, "aclose", None)) is not None:
                await close()


async def _next(source: AsyncIterator[T]) -> T | None:
    return await anext(source, None)


def _event(told: feed.Told) -> bytes:
    return sse.event(json.dumps(told, default=str))


def _read(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300], hint='send {"model": "…"}') from exc
    if not isinstance(given, dict):
        raise CallerError("the body must be a JSON object", hint='send {"model": "…"}')
    return given


def _named(given: dict[str, Any]) -> str:
    name = given.get("model")
    if not isinstance(name, str) or not name:
        raise CallerError("model must be a non-empty string", hint='send {"model": "…"}', param="model")
    return name
