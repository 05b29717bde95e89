"""Docker's routes about its engines: which run, how they are set up, what they wrote and were asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from corral import clock
from corral.api import UnitInfo
from corral.api_access import RecordedRequest
from corral.config.settings import ModelSettings
from corral.config.tuning import Tuning
from corral.engines.flags import check_allowed
from corral.errors import CallerError, CorralError, NotOffered, UnknownModel
from corral.gateway.answer import send_feed, send_json, send_text, wants_events
from corral.gateway.api.docker_models import DockerModels
from corral.gateway.control.access import AccessHost, must_be_known
from corral.gateway.dialects.docker import configure, shapes
from corral.gateway.dialects.docker.errors import DOCKER
from corral.gateway.dialects.fields import get, need, object_of
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.http import sse
from corral.gateway.models_host import ModelsHost
from corral.gateway.routes import Handler, Match, Route
from corral.supervisor import logs

_HEARTBEAT_S = 15.0
_LOOK_S = 0.25
"""How often a client that follows what is recorded gets what is new."""

_TAIL_BYTES = 1 << 20
_TAIL_LINES = 2000
_LOADED = ("ready", "sleeping", "draining")
_LOADING = ("starting", "loading")


class DockerEngines:
    """Their handlers."""

    def __init__(self, host: Host, models: ModelsHost | None, known: DockerModels, access: AccessHost | None) -> None:
        self._host, self._models, self._known, self._access = host, models, known, access

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Handler, scope: Any = "admin") -> Route:
            return Route(method, path, handler, dialect=DOCKER, scope=scope)

        return [
            route("GET", "/logs", self._logs),
            route("GET", "/engines/status", self._status, "infer"),
            route("GET", "/engines/ps", self._ps, "infer"),
            route("GET", "/engines/df", self._df, "infer"),
            route("POST", "/engines/unload", self._unload),
            route("POST", "/engines/_configure", self._configure),
            route("GET", "/engines/_configure", self._configured),
            *(route("POST", f"/engines/{each}/_configure", self._configure) for each in shapes.BACKENDS),
            route("GET", "/engines/requests", self._requests),
            route("POST", "/engines/install-backend", self._install),
            route("POST", "/engines/uninstall-backend", self._uninstall),
        ]

    async def _status(self, exchange: Exchange, match: Match, body: bytes) -> None:
        version = next((unit.engine_version for unit in self._host.units() if unit.engine_version), "")
        await send_json(exchange, shapes.status(version))

    async def _ps(self, exchange: Exchange, match: Match, body: bytes) -> None:
        caller, found = exchange.caller, []
        for unit in self._units():
            model = self._host.settings.models.get(unit.model)
            if caller is None or caller.may_use((unit.model, *(model.aliases if model is not None else ()))):
                found.append(await self._running(unit))
        await send_json(exchange, shapes.running(found, clock.wall()))

    def _units(self) -> list[UnitInfo]:
        return [unit for unit in self._host.units() if unit.state in (*_LOADED, *_LOADING)]

    async def _running(self, unit: UnitInfo) -> shapes.Running:
        model, mode = self._host.settings.models.get(unit.model), "completion"
        if model is not None:
            with suppress(CorralError, OSError):
                mode = (await self._known.of(model)).mode
        timeout = None if model is None or model.pin or unit.kept == "pin" else model.idle_timeout_s
        left = unit.idle_stop_in_s
        idle = 0.0 if unit.busy or timeout is None or left is None else max(0.0, timeout - left)
        return shapes.Running(unit.model, mode, timeout, idle, unit.busy > 0, unit.state in _LOADING)

    async def _df(self, exchange: Exchange, match: Match, body: bytes) -> None:
        used = (await self._models.usage()).total_bytes if self._models is not None else 0
        await send_json(exchange, {"models_disk_usage": used, "default_backend_disk_usage": 0})

    async def _unload(self, exchange: Exchange, match: Match, body: bytes) -> None:
        given = object_of(body, '{"models": ["ai/smollm2"]}')
        names = get(given, "models", list) or []
        if not all(isinstance(each, str) for each in names):
            raise CallerError("models must be a list of texts", hint='send {"models": ["ai/smollm2"]}', param="models")
        loaded = [unit.model for unit in self._units()]
        chosen = set(loaded) if get(given, "all", bool) else {(await self._served(each)).name for each in names}
        if (backend := get(given, "backend", str)) and backend != shapes.BACKEND:
            chosen = set()
        for name in sorted(chosen & set(loaded)):
            await self._host.stop(name)
        await send_json(exchange, {"unloaded_runners": sum(name in chosen for name in loaded)})

    async def _served(self, text: str) -> ModelSettings:
        """The model that `text` means; nothing is fetched."""
        if text in self._host.settings.models:
            return self._host.settings.models[text]
        entry, name = await self._known.locate(text)
        return await self._host.known(name or entry.names[0])

    async def _configure(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if (parts := exchange.path.split("/"))[2] != "_configure":
            configure.backend_of(parts[2])
        asked = configure.read(body)
        model = await self._served(asked.model)
        tuning = asked.over(self._host.tunings().get(model.name, Tuning()))
        check_allowed(tuning.args or ())
        await self._host.tune(model.name, tuning)
        await exchange.respond(202, [])

    async def _configured(self, exchange: Exchange, match: Match, body: bytes) -> None:
        wanted = _query(exchange, "model")
        only = (await self._served(wanted)).name if wanted else None
        made = []
        for name, tuning in self._host.tunings().items():
            if only is None or name == only:
                entry = None
                with suppress(UnknownModel):
                    entry, _ = await self._known.locate(name)
                made.append(configure.shown(name, tuning, entry))
        await send_json(exchange, made)

    # What was asked

    async def _requests(self, exchange: Exchange, match: Match, body: bytes) -> None:
        must_be_known(exchange)
        if self._access is None or not (recording := self._access.recording()).on:
            raise NotOffered(
                "requests are not recorded", hint="corral requests --on --bodies begins it, in memory only"
            )
        wanted = _query(exchange, "model")
        only = (await self._served(wanted)).name if wanted else None
        if wants_events(exchange):
            existing = _query(exchange, "include_existing").lower() in ("1", "true")
            await send_feed(exchange, self._record_feed(only, existing), _HEARTBEAT_S)
            return
        by_model: dict[str, list[RecordedRequest]] = {}
        for each in recording.requests:
            if each.model and only in (None, each.model):
                by_model.setdefault(each.model, []).append(each)
        await send_json(exchange, [await self._recorded(name, found) for name, found in by_model.items()])

    async def _recorded(self, name: str, found: list[RecordedRequest]) -> dict[str, Any]:
        tuning, digest = self._host.tunings().get(name, Tuning()), name
        with suppress(CorralError):
            digest = (await self._known.locate(name))[0].id
        config = configure.shown(name, tuning, None)["Config"]
        return {"count": len(found), "model": digest, "config": config, "records": [_record(each) for each in found]}

    async def _record_feed(self, only: str | None, existing: bool) -> AsyncIterator[bytes]:
        assert self._access is not None
        yield sse.event(json.dumps({"status": "connected"}), name="connected")
        seen, first = 0, True
        while True:
            ended = [each for each in self._access.recording().requests if each.took_ms is not None]
            for each in (each for each in ended if each.number > seen):
                seen = max(seen, each.number)
                if each.model and only in (None, each.model) and (existing or not first):
                    kind = "existing_request" if first else "new_request"
                    yield sse.event(json.dumps(await self._recorded(each.model, [each])), name=kind)
            first = False
            await asyncio.sleep(_LOOK_S)

    # What was written

    async def _logs(self, exchange: Exchange, match: Match, body: bytes) -> None:
        engines = _query(exchange, "no-engines").lower() not in ("1", "true")
        text = await asyncio.to_thread(self._written, engines)
        if _query(exchange, "follow").lower() not in ("1", "true"):
            await send_text(exchange, text)
            return
        exchange.endless = True
        await exchange.start(200, [(b"content-type", b"text/plain; charset=utf-8"), (b"x-accel-buffering", b"no")])
        await exchange.write(text)
        async for entry in self._host.events.follow(self._host.events.last_seq):
            await exchange.write(_line(entry.wall_s, entry.text))
        await exchange.end()

    def _written(self, engines: bool) -> bytes:
        made = b"".join(_line(entry.wall_s, entry.text) for entry in self._host.events.since())
        for name in sorted({unit.model for unit in self._host.units()}) if engines else ():
            if files := self._host.log_files(name):
                made += b"".join(
                    f"[{name}] {line}\n".encode()
                    for line in logs.tail(files[-1], _TAIL_LINES, _TAIL_BYTES).splitlines()
                )
        return made

    # What there is no need for

    async def _install(self, exchange: Exchange, match: Match, body: bytes) -> None:
        configure.backend_of(need(object_of(body, '{"backend": "llama.cpp"}'), "backend", str))
        await send_text(exchange, b"llama.cpp is installed\n")

    async def _uninstall(self, exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotOffered("an engine is not removed from here", hint="it is part of the server's installation")


def _query(exchange: Exchange, name: str) -> str:
    return dict(parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True)).get(name, "")


def _line(wall_s: float, text: str) -> bytes:
    moment = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"[{moment}] {text}\n".encode(errors="replace")


def _record(each: RecordedRequest) -> dict[str, Any]:
    """One record; answers are never recorded."""
    headers = dict(each.headers)
    return {
        "id": f"req_{each.number}", "model": each.model, "method": each.method, "url": each.target,
        "request": each.body or "", "response": "", "timestamp": int(each.at_wall_s), "status_code": each.status,
        "user_agent": headers.get("user-agent", ""), "origin": headers.get("origin", ""),
    }  # fmt: skip
