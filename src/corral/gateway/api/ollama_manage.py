"""Ollama's routes that fetch, make, name and remove models."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from corral.api_store import CreateAsk, PullAsk, PushAsk, RemoveAsk, TagAsk
from corral.descriptors import check_digest
from corral.errors import CallerError, DigestMismatch, InUse, ManifestError, UnknownModel
from corral.gateway.answer import send_json
from corral.gateway.api.ollama_models import OllamaModels
from corral.gateway.api.told_work import following, the_store, working
from corral.gateway.dialects.ollama import asked, names
from corral.gateway.dialects.ollama.errors import LINES, OLLAMA, line
from corral.gateway.dialects.ollama.modelfile import read_create
from corral.gateway.dialects.ollama.pulls import PullLines, failure, push_line
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.routes import Match, Route

T = TypeVar("T")
Line = dict[str, Any]

_EVERY_S = 0.1
"""Progress is told so often at most."""


class OllamaManage:
    """Their handlers. Without a store each says that there is none."""

    def __init__(self, host: Host, models: ModelsHost | None, known: OllamaModels) -> None:
        self._host, self._store, self._known = host, models, known

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, scope: Any = "admin") -> Route:
            return Route(method, path, handler, dialect=OLLAMA, scope=scope)

        return [
            route("POST", "/api/pull", self._pull, "pull"),
            route("POST", "/api/push", self._push),
            route("POST", "/api/create", self._create),
            route("POST", "/api/copy", self._copy),
            route("DELETE", "/api/delete", self._delete),
            route("HEAD", "/api/blobs/{digest}", self._has_blob),
            replace(route("POST", "/api/blobs/{digest}", self._add_blob), piecewise=True),
        ]

    @property
    def _models(self) -> ModelsHost:
        return the_store(self._store)

    async def _pull(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = asked.read(body)
        name = _named(given)
        lines = _Lines(exchange, asked.flag(given, "stream", True))
        download = await self._models.pull(PullAsk(names.reference(name)))
        told = PullLines()
        await lines.say(told.more(download))
        async with aclosing(following(self._models, download)) as feed:
            async for now in feed:
                download = now
                await lines.say(told.more(now))
        if download.state != "done":
            raise failure(download)
        await lines.end({"status": "success"})

    async def _push(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = asked.read(body)
        name = _named(given)
        stored = await self._known.in_store(name)
        digest = next((row.digest for row in await self._models.stored() if row.name == stored), "")
        lines = _Lines(exchange, asked.flag(given, "stream", True))
        await lines.say([{"status": "retrieving manifest"}])
        await working(
            lambda report: self._models.push(PushAsk(stored), report), lines.say, lambda now: push_line(now, digest)
        )
        await lines.say([{"status": "pushing manifest"}])
        await lines.end({"status": "success"})

    async def _create(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = asked.read(body)
        recipe = read_create(given)
        lines = _Lines(exchange, asked.flag(given, "stream", True))
        base, file = await self._base(recipe.base)
        ask = CreateAsk(
            names.reference(recipe.model), base, file, recipe.files, recipe.adapters, recipe.template, recipe.system,
            recipe.licenses, recipe.params, recipe.messages,
        )  # fmt: skip
        done = await working(
            lambda report: self._models.create(ask, report), lines.say, lambda now: {"status": now.text}
        )  # fmt: skip
        await lines.say([{"status": note} for note in done.notes])
        await lines.end({"status": "success"})

    async def _base(self, name: str) -> tuple[str | None, str | None]:
        """The model of the store that a new one is made of, or the file of one that models.yaml has."""
        if not name:
            return None, None
        try:
            return await self._known.in_store(name), None
        except UnknownModel:
            raise
        except CallerError:
            model = await self._known.find(name)
            if model.ref is not None:
                raise
            return None, str(model.source)

    async def _copy(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = asked.read(body)
        source, target = asked.text(given, "source"), asked.text(given, "destination")
        if not source or not target:
            raise CallerError("source and destination are required", hint='send {"source": "…", "destination": "…"}')
        try:
            stored = await self._known.in_store(source)
        except UnknownModel as exc:
            raise UnknownModel(f'model "{source}" not found', hint=exc.hint, **exc.details) from exc
        await self._models.tag(TagAsk(stored, names.reference(target)))
        await exchange.respond(200, [])

    async def _delete(self, exchange: Exchange, match: Match, body: bytes) -> None:
        stored = await self._known.in_store(_named(asked.read(body)))
        try:
            await self._models.remove(RemoveAsk([stored]))
        except InUse:  # as Ollama, which unloads what it deletes, also where another name has the same files
            await self._host.stop(stored)
            await self._models.remove(RemoveAsk([stored]))
        await exchange.respond(200, [])

    async def _has_blob(self, exchange: Exchange, match: Match, body: bytes) -> None:
        here = await self._models.has_blob(_digest(match.rest))
        await exchange.respond(200 if here else 404, [])

    async def _add_blob(self, exchange: Exchange, match: Match, body: bytes) -> None:
        digest = _digest(match.rest)
        if await self._models.has_blob(digest):
            await exchange.respond(200, [])
            return

        try:
            await self._models.add_blob(digest, exchange.pieces())
        except DigestMismatch as exc:
            raise CallerError("digest mismatch", hint="what came is not what its digest says: send it again") from exc
        await exchange.respond(201, [])


class _Lines:
    """Progress as a stream of lines, or kept to oneself until the end."""

    def __init__(self, exchange: Exchange, stream: bool) -> None:
        self._exchange, self._stream = exchange, stream

    async def say(self, lines: list[Line]) -> None:
        made = b"".join(map(line, lines))
        if not self._stream or not made:
            return
        if not self._exchange.started:
            await self._exchange.start(200, [(b"content-type", LINES), (b"x-accel-buffering", b"no")], events=True)
        await self._exchange.write(made)

    async def end(self, last: Line) -> None:
        if self._exchange.started:
            await self._exchange.end(line(last))
        elif self._stream:
            await self._exchange.respond(200, [(b"content-type", LINES)], line(last))
        else:
            await send_json(self._exchange, last)


def _named(given: Line) -> str:
    name = asked.model(given)
    if not name:
        raise CallerError("model is required", hint='send such as {"model": "llama3.2"}', param="model")
    return name


def _digest(text: str) -> str:
    try:
        return check_digest(text.replace("sha256-", "sha256:"))
    except ManifestError as exc:
        raise CallerError("invalid digest format", hint=exc.hint, param="digest") from exc
