"""The control routes of the model store: downloads, stored models, and what is done to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from corral.api import dump
from corral.api_store import (
    ConvertAsk,
    Done,
    DownloadAsk,
    DownloadInfo,
    ExportAsk,
    Exported,
    FoundModel,
    ImportAsk,
    ImportedInfo,
    Inspected,
    LoadAsk,
    LoadedInfo,
    LoginAsk,
    LogoutAsk,
    ModelCard,
    PackageAsk,
    PastInfo,
    Progress,
    PruneAsk,
    PullAsk,
    PushAsk,
    Pushed,
    QuantizeAsk,
    QuantizerInfo,
    Remade,
    RemoveAsk,
    Removed,
    RollbackAsk,
    StoredModel,
    TagAsk,
    Tagged,
    UpdateAsk,
    UsageInfo,
    Verified,
    VerifyAsk,
)
from corral.errors import (
    BadReference,
    CallerError,
    CorralError,
    DigestMismatch,
    DiskFull,
    EgressRefused,
    EngineError,
    EngineMissing,
    InUse,
    LocalOnly,
    ManifestError,
    ModelFileError,
    NotAllowedThere,
    NotInRegistry,
    NotInStore,
    NotJson,
    RateLimited,
    SignatureError,
    StoreError,
    TooLarge,
    Unavailable,
)
from corral.gateway.answer import encode, error_info, send_feed, send_json, wants_events
from corral.gateway.control.bodies import read_body
from corral.gateway.exchange import Exchange
from corral.gateway.http import sse
from corral.gateway.models_host import ModelsHost, Report
from corral.gateway.routes import Doc, Handler, Match, Param, Route, query

_FOLLOW = Param("follow", bool, "1 = stay connected and send each download again when it changes", False)
_REF = Param("ref", str, "a reference, as `pull` takes it, or a name of the store")
_REMOTE = Param("remote", bool, "1 = ask the registry instead of the store", False)
_TEXT = Param("text", str, "what the names should have in them", "")
_SOURCE = Param("source", str, "docker or hf; both without it")
_LIMIT = Param("limit", int, "how many of each at most", 25, 1, 100)

_BODY = (NotJson, CallerError, TooLarge)
_NAME = (CallerError, BadReference, NotInStore, StoreError)
_REGISTRY = (
    BadReference, NotInRegistry, NotAllowedThere, RateLimited, Unavailable, EgressRefused, ManifestError,
    DigestMismatch, SignatureError,
)  # fmt: skip
_LOCAL = (LocalOnly,)
_PROGRESS = (
    "With Accept: text/event-stream each event is `{\"progress\": …}`, and the last `{\"result\": …}` or "
    "`{\"error\": …}`. Leaving ends the work."
)  # fmt: skip


_FOR_PULL = frozenset(
    f"/control/{each}"
    for each in (
        "pull", "update", "downloads", "downloads/pause", "downloads/resume", "downloads/cancel", "store",
        "show/{model}", "inspect", "search",
    )
)  # fmt: skip
"""What a key that may fetch models is good for; the rest is an administrator's."""


class StoreControl:
    """The handlers, over one host."""

    def __init__(self, models: ModelsHost, heartbeat_s: float) -> None:
        self._models = models
        self._heartbeat_s = heartbeat_s

    def routes(self) -> list[Route]:
        """All of them. What names files or takes passwords answers on unix sockets only."""
        models = self._models
        found = [
            _act("pull", models.pull, PullAsk, DownloadInfo, "Fetch a model; answers at once", (*_NAME, DiskFull)),
            _act("update", models.update, UpdateAsk, list[DownloadInfo], "Fetch what changed upstream", _NAME),
            Route(
                "GET", "/control/downloads", self._downloads,
                Doc("Downloads, the newest first", list[DownloadInfo],
                    text="A list; with `follow`, or Accept: text/event-stream, each event is one download: all there "
                    "are, then each again when it changes, ten times a second at most.",
                    media=("application/json", "text/event-stream"), params=(_FOLLOW,), errors=(CallerError,)),
            ),
            _act("downloads/pause", models.pause, DownloadAsk, DownloadInfo, "Pause a download", _NAME),
            _act("downloads/resume", models.resume, DownloadAsk, DownloadInfo, "Go on with a download", _NAME),
            _act("downloads/cancel", models.cancel, DownloadAsk, DownloadInfo, "Give a download up", _NAME),
            Route("GET", "/control/store", self._stored, Doc("The stored models", list[StoredModel])),
            Route(
                "GET", "/control/store/usage", self._usage,
                Doc("What takes how much room, to the byte", UsageInfo, errors=(StoreError,)),
            ),
            Route("GET", "/control/show/{model}", self._show, Doc("A model's card", ModelCard, errors=_NAME)),
            Route(
                "GET", "/control/inspect", self._inspect,
                Doc("A manifest and its config", Inspected, params=(_REF, _REMOTE), errors=(*_NAME, *_REGISTRY)),
            ),
            Route(
                "GET", "/control/history/{model}", self._history,
                Doc("What a name pointed to, the newest first", list[PastInfo], errors=_NAME),
            ),
            Route(
                "GET", "/control/search", self._search,
                Doc("Models on Docker Hub and Hugging Face", list[FoundModel], params=(_TEXT, _SOURCE, _LIMIT),
                    errors=(CallerError, *_REGISTRY)),
            ),
            _act("store/remove", models.remove, RemoveAsk, Removed, "Remove names and what only they need",
                 (*_NAME, InUse)),
            _act("store/prune", models.prune, PruneAsk, Removed, "Remove what nothing refers to, and old names", _NAME),
            _act("store/tag", models.tag, TagAsk, Tagged, "Give a stored model another name", _NAME),
            _act("store/rollback", models.rollback, RollbackAsk, Tagged, "Point a name to an earlier digest", _NAME),
            self._work("store/verify", models.verify, VerifyAsk, Verified, "Check that every byte is right", _NAME),
            self._work("store/push", models.push, PushAsk, Pushed, "Send a stored model to a registry",
                       (*_NAME, *_REGISTRY)),
            self._work("store/package", models.package, PackageAsk, Tagged, "Make a stored model of files",
                       (*_NAME, ModelFileError, *_LOCAL), local=True),
            self._work("store/quantize", models.quantize, QuantizeAsk, Remade, "Make a model with smaller weights",
                       (*_NAME, ModelFileError, EngineError, EngineMissing, DiskFull, *_LOCAL), local=True),
            self._work("store/convert", models.convert, ConvertAsk, Remade, "Make a GGUF model of a safetensors model",
                       (*_NAME, ModelFileError, EngineMissing, DiskFull, *_LOCAL), local=True),
            Route(
                "GET", "/control/store/quantizer", self._quantizer,
                Doc("The types that weights can be quantized to", QuantizerInfo, errors=(EngineError, EngineMissing)),
            ),
            self._work("store/import", models.import_models, ImportAsk, list[ImportedInfo],
                       "Take over models of another tool", (*_NAME, ModelFileError, *_LOCAL), local=True),
            self._work("store/export", models.export, ExportAsk, Exported, "Write models to a tar file",
                       (*_NAME, *_LOCAL), local=True),
            self._work("store/load", models.load, LoadAsk, LoadedInfo, "Read models from a tar file",
                       (*_NAME, ManifestError, *_LOCAL), local=True),
            _act("login", models.login, LoginAsk, Done, "Keep a registry's credentials", (*_REGISTRY, *_LOCAL),
                 local=True),
            _act("logout", models.logout, LogoutAsk, Done, "Forget a registry's credentials", _LOCAL, local=True),
        ]  # fmt: skip
        return [replace(route, scope="pull") if route.path in _FOR_PULL else route for route in found]

    async def _downloads(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if query(exchange, (_FOLLOW,))["follow"] or wants_events(exchange):
            await send_feed(exchange, _feed(self._models.follow_downloads()), self._heartbeat_s)
        else:
            await send_json(exchange, await self._models.downloads())

    async def _stored(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._models.stored())

    async def _usage(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._models.usage())

    async def _show(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._models.show(match.rest))

    async def _history(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._models.history(match.rest))

    async def _quantizer(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._models.quantizer())

    async def _inspect(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_REF, _REMOTE))
        if not asked["ref"]:
            raise CallerError("which model?", hint="add ?ref=NAME", param="ref")
        await send_json(exchange, await self._models.inspect(asked["ref"], remote=asked["remote"]))

    async def _search(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_TEXT, _SOURCE, _LIMIT))
        if asked["source"] not in (None, "docker", "hf"):
            raise CallerError("source must be docker or hf", hint="leave it out for both", param="source")
        found = await self._models.search(asked["text"], source=asked["source"], limit=asked["limit"])
        await send_json(exchange, found)

    def _work(
        self,
        verb: str,
        act: Callable[[Any, Report], Awaitable[Any]],
        takes: type[Any],
        gives: Any,
        summary: str,
        errors: tuple[type[CorralError], ...],
        *,
        local: bool = False,
    ) -> Route:
        """A route whose work may take minutes: answered when it is done, or followed as it goes."""

        async def handle(exchange: Exchange, match: Match, body: bytes) -> None:
            query(exchange, ())
            ask = read_body(takes, body)
            if wants_events(exchange):
                await send_feed(exchange, _working(act, ask), self._heartbeat_s)
            else:
                await send_json(exchange, await act(ask, lambda progress: None))

        media = ("application/json", "text/event-stream")
        doc = Doc(summary, gives, text=_PROGRESS, takes=takes, media=media, errors=(*_BODY, *errors))
        return Route("POST", f"/control/{verb}", handle, doc, local=local)


def _act(
    verb: str,
    act: Callable[[Any], Awaitable[Any]],
    takes: type[Any],
    gives: Any,
    summary: str,
    errors: tuple[type[CorralError], ...],
    *,
    local: bool = False,
) -> Route:
    async def handle(exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await act(read_body(takes, body)))

    handler: Handler = handle
    doc = Doc(summary, gives, takes=takes, errors=(*_BODY, *errors))
    return Route("POST", f"/control/{verb}", handler, doc, local=local)


async def _feed(downloads: AsyncIterator[DownloadInfo]) -> AsyncIterator[bytes]:
    async for each in downloads:
        yield sse.event(encode(each).decode())


async def _working(act: Callable[[Any, Report], Awaitable[Any]], ask: Any) -> AsyncIterator[bytes]:
    """The newest progress whenever there is one, then how it ended. Closing it cancels the work."""
    loop, latest, changed = asyncio.get_running_loop(), [Progress("")], asyncio.Event()

    def report(progress: Progress) -> None:
        latest[0] = progress
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(changed.set)

    async def work() -> Any:
        return await act(ask, report)

    working = asyncio.create_task(work(), name="work")
    try:
        while not working.done():
            waiting = asyncio.create_task(changed.wait())
            await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if changed.is_set():
                changed.clear()
                yield _event("progress", latest[0])
                await asyncio.sleep(0.1)
        try:
            yield _event("result", working.result())
        except CorralError as error:
            yield _event("error", error_info(error))
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, CorralError):
            await working


def _event(key: str, value: Any) -> bytes:
    return sse.event(json.dumps({key: dump(value)}, default=str))
