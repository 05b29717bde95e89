"""Docker's routes under `/models`: the list, and what fetches, names, makes, sends and removes models."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from corral.api_store import CreateAsk, PullAsk, PushAsk, RemoveAsk, TagAsk
from corral.errors import CallerError, Forbidden, InUse, NotFound
from corral.gateway.answer import send_json
from corral.gateway.api.docker_models import DockerModels
from corral.gateway.api.docker_tar import export, take_in
from corral.gateway.api.docker_work import Lines
from corral.gateway.api.told_work import following, the_store, working
from corral.gateway.dialects.docker import shapes
from corral.gateway.dialects.docker.errors import DOCKER
from corral.gateway.dialects.docker.lines import PullLines, success, warning, work_line
from corral.gateway.dialects.docker.names import full
from corral.gateway.dialects.fields import get, need, object_of
from corral.gateway.dialects.ollama.pulls import failure
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.routes import Match, Route

_TOKEN_UNUSED = "the token was not used: Corral keeps credentials itself, see `corral login hf.co`"


class DockerManage:
    """Their handlers. Without a store each says that there is none."""

    def __init__(self, host: Host, models: ModelsHost | None, known: DockerModels) -> None:
        self._host, self._store, self._known = host, models, known

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, scope: Any = "admin", *, large: bool = False) -> Route:
            return Route(method, path, handler, dialect=DOCKER, scope=scope, large=large)

        return [
            route("GET", "/models", self._list, "infer"),
            route("POST", "/models/create", self._create, "pull"),
            route("POST", "/models/load", self._load, large=True),
            route("DELETE", "/models/purge", self._purge),
            route("GET", "/models/{name}", self._show, "infer"),
            route("POST", "/models/{name}", self._act),
            route("DELETE", "/models/{name}", self._delete),
        ]

    @property
    def _models(self) -> ModelsHost:
        return the_store(self._store)

    async def _list(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, [shapes.model(entry) for entry in await self._known.entries(exchange.caller)])

    async def _show(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if match.rest.endswith("/export"):
            wanted = match.rest.removesuffix("/export")
            await self._known.locate(wanted, exchange.caller)
            _, name = await self._known.in_store(wanted)
            await export(exchange, self._models, name, self._host.status().state_dir)
            return
        if _flag(exchange, "remote"):
            if exchange.caller is not None and not exchange.caller.may("pull"):
                raise Forbidden(
                    "asking a registry needs a key with the scope pull", hint="use another key", scope="pull"
                )
            await send_json(exchange, await self._remote(match.rest))
            return
        entry, _ = await self._known.locate(match.rest, exchange.caller)
        await send_json(exchange, shapes.model(entry))

    async def _remote(self, text: str) -> dict[str, Any]:
        """A model of a registry; of one that Docker did not package its config is shaped as far as it goes."""
        found = await self._models.inspect(full(text), remote=True)
        inner = (found.config or {}).get("config")
        layers = found.manifest.get("layers") or []
        size = sum(each["size"] for each in layers if isinstance(each, dict) and isinstance(each.get("size"), int))
        usual = {"format": "gguf", "quantization": "", "parameters": "", "architecture": "", "size": shapes.size(size)}
        config = {**usual, **(inner if isinstance(inner, dict) else {})}
        return {"id": found.digest, "tags": [found.ref], "created": 0, "config": config}

    async def _create(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = object_of(body, '{"from": "ai/smollm2"}')
        ref = full(need(given, "from", str))
        before = {row.name: row.digest for row in await self._models.stored()}
        lines, told = Lines(exchange, "pull"), PullLines()
        download = await self._models.pull(PullAsk(ref))
        if get(given, "bearer-token", str):
            await lines.say([warning(_TOKEN_UNUSED, "pull")])
        await lines.say(told.more(download))
        async with aclosing(following(self._models, download)) as feed:
            async for download in feed:
                await lines.say(told.more(download))
        if download.state != "done":
            await lines.fail(failure(download))
            return
        words = "Model pulled successfully"
        if before.get(download.name) == download.digest:
            entry, _ = await self._known.locate(download.name)
            words = f"Using cached model: {shapes.size(entry.size)}"
        await lines.end([*(warning(note, "pull") for note in download.notes), success(words, "pull")])

    async def _load(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if not body:
            raise CallerError("there is no tar file in the body", hint="send what /models/{name}/export gave")
        lines = Lines(exchange, "pull")
        place = self._host.status().state_dir
        name = await working(
            lambda report: take_in(self._models, body, report, place),
            lines.say,
            lambda now: work_line(now, "", "pull", "Loaded"),
        )
        await lines.end([success(f"Model loaded successfully as {name}", "pull")])

    async def _act(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name, _, verb = match.rest.rpartition("/")
        acts = {"tag": self._tag, "push": self._push, "repackage": self._repackage}
        if not name or verb not in acts:
            raise NotFound(f"there is nothing at /models/{match.rest[:200]}", hint=f"known are {', '.join(acts)}")
        await acts[verb](exchange, name, body)

    async def _tag(self, exchange: Exchange, name: str, body: bytes) -> None:
        query = dict(parse_qsl(exchange.query.decode("latin-1")))
        repo, tag = query.get("repo", ""), query.get("tag", "")
        if not repo:
            raise CallerError("which name?", hint="add ?repo=me/model&tag=v1", param="repo")
        entry, stored = await self._known.in_store(name)
        done = await self._models.tag(TagAsk(stored, full(f"{repo}:{tag}" if tag else repo)))
        await send_json(exchange, {"message": f"Model {entry.id} tagged as {done.name}", "target": done.name}, 201)

    async def _push(self, exchange: Exchange, name: str, body: bytes) -> None:
        entry, stored = await self._known.in_store(name)
        lines = Lines(exchange, "push")
        await working(
            lambda report: self._models.push(PushAsk(stored), report),
            lines.say,
            lambda now: work_line(now, entry.id, "push", "Uploaded"),
        )
        await lines.end([success("Model pushed successfully", "push")])

    async def _repackage(self, exchange: Exchange, name: str, body: bytes) -> None:
        given = object_of(body, '{"target": "me/model:8k", "context_size": 8192}')
        target, context = full(need(given, "target", str)), get(given, "context_size", int)
        if context is not None and context <= 0:
            raise CallerError("context_size must be a number of tokens", hint="leave it out", param="context_size")
        _, stored = await self._known.in_store(name)
        params = {} if context is None else {"num_ctx": context}
        done = await self._models.create(CreateAsk(target, stored, params=params), lambda progress: None)
        made = {"message": f"Model repackaged as {done.name}", "source": stored, "target": done.name}
        await send_json(exchange, made, 201)

    async def _delete(self, exchange: Exchange, match: Match, body: bytes) -> None:
        force = _flag(exchange, "force")
        entry, name = await self._known.locate(match.rest)
        stored = {row.name for row in await self._models.stored()}
        names = [name] if name else [each for each in entry.names if each in stored]
        if not name and len(names) > 1 and not force:
            raise _several(entry.id, names)
        if not set(names) & stored:
            await self._known.in_store(match.rest)  # which says why not
        await self._remove(names, force)
        gone: list[dict[str, str]] = [{"Untagged": each} for each in names]
        left = any(row.digest == entry.id for row in await self._models.stored())
        await send_json(exchange, gone if left else [*gone, {"Deleted": entry.id}])

    async def _remove(self, names: list[str], force: bool) -> None:
        try:
            await self._models.remove(RemoveAsk(names))
        except InUse as exc:
            if not force:
                hint = "add ?force=true to stop it, or: docker model unload"
                raise InUse(exc.message, hint=hint, **exc.details) from exc
            for each in names:
                await self._host.stop(each)
            await self._models.remove(RemoveAsk(names))

    async def _purge(self, exchange: Exchange, match: Match, body: bytes) -> None:
        names = [row.name for row in await self._models.stored() if row.place is None]
        if names:
            await self._remove(names, force=True)
        await exchange.respond(200, [])


def _flag(exchange: Exchange, name: str) -> bool:
    value = dict(parse_qsl(exchange.query.decode("latin-1"))).get(name, "")
    return value.lower() in ("1", "t", "true")


def _several(model: str, names: list[str]) -> InUse:
    return InUse(
        f"unable to delete {model} (must be forced) due to multiple tag references: {', '.join(names)}",
        hint="name one of them, or add ?force=true",
    )
