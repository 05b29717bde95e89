"""The control routes: what Corral tells of itself, and what it can be told to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from typing import Any

from corral.api import (
    ActionResult,
    DeviceInfo,
    EventInfo,
    HealthInfo,
    ModelAction,
    ModelInfo,
    PlanInfo,
    ReloadResult,
    Status,
    Story,
    UnitInfo,
)
from corral.errors import (
    CallerError,
    CannotFit,
    ConfigError,
    DeadlinePassed,
    EngineFlagError,
    EngineMissing,
    LocalOnly,
    ModelFileError,
    NotJson,
    PortInUse,
    QueueFull,
    StartFailed,
    StateInUse,
    Stopping,
    TooLarge,
    UnknownArchitecture,
    UnknownModel,
)
from corral.gateway.answer import encode, send_feed, send_json, send_text, wants_events, wants_page
from corral.gateway.control.bodies import read_body
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.http import sse
from corral.gateway.routes import Doc, Handler, Match, Param, Route, query
from corral.supervisor import logs

_FOLLOW = Param("follow", bool, "1 = stay connected and send what comes, as server-sent events", False)
_LINES = Param("lines", int, "how many of the newest lines", 100, 0, 100_000)
_REQUEST = Param("request", str, "only what is known of the request with this id, and what the engine wrote of it")
_SINCE = Param("since", int, "only entries with a higher number than this", 0, 0, 10**18)
_LAST = Param("since", int, "only what happened in the last so many seconds; 0 = all that is known", 0, 0, 10**12)
_STORY_LINES = Param("lines", int, "how many lines at most, the newest", 50, 0, 100_000)
_OF_MODEL = Param("model", str, "only entries about this model (name or alias)")

_TAIL_BYTES = 4 << 20
_THREAD_ENTRIES = 500
"""From so many entries on they are encoded in a thread, so that no stream waits for it."""

_ACTION_HINTS = {"model": "GET /control/models lists them", "wait": "leave it out to wait"}
_ACTION_ERRORS = (NotJson, CallerError, UnknownModel, TooLarge, Stopping)
_PLAN_ERRORS = (CannotFit, StartFailed, ModelFileError, UnknownArchitecture, EngineMissing, EngineFlagError)
_START_ERRORS = (*_ACTION_ERRORS, QueueFull, DeadlinePassed, *_PLAN_ERRORS)


class Control:
    """The handlers of `/control`, over one host."""

    def __init__(self, host: Host, heartbeat_s: float) -> None:
        self._host = host
        self._heartbeat_s = heartbeat_s
        self._described: Callable[[], tuple[Route, ...]] = tuple

    def routes(self) -> list[Route]:
        """All of them. `describe` says later which routes the API document has."""
        return [
            Route("GET", "/control/models", self._models, Doc("The configured models", list[ModelInfo])),
            Route("GET", "/control/units", self._units, Doc("The supervised engines", list[UnitInfo])),
            Route("GET", "/control/status", self._status, Doc("The server as a whole", Status)),
            Route(
                "GET", "/control/devices", self._devices,
                Doc("Every device with its memory, and whose that is", list[DeviceInfo]),
            ),
            Route("GET", "/control/health", self._health, Doc("Whether the server is well", HealthInfo)),
            Route(
                "GET", "/control/health/{model}", self._health,
                Doc("Whether a model is well: its process, its own health, one token; starts nothing", HealthInfo,
                    errors=(UnknownModel,)),
            ),
            _action("start", self._host.start, "Start a model's engine and wait until it is ready", _START_ERRORS),
            Route(
                "GET", "/control/plan/{model}", self._plan,
                Doc("What a model's next start would run, on unix sockets only", PlanInfo,
                    errors=(CallerError, UnknownModel, LocalOnly, *_PLAN_ERRORS)),
                local=True,
            ),
            _action("stop", self._host.stop, "Stop a model's engine once its requests are done", _ACTION_ERRORS),
            _action("restart", self._host.restart, "Stop a model's engine and start it anew", _START_ERRORS),
            Route(
                "POST", "/control/reload", self._reload,
                Doc("Read the configuration again; a bad one changes nothing", ReloadResult,
                    errors=(ConfigError, PortInUse, Stopping)),
            ),
            Route(
                "POST", "/control/handover", self._hand_over,
                Doc("Let a server that waits for it take over; see `corral serve --handover`", dict[str, str],
                    errors=(LocalOnly, StateInUse, Stopping)),
                local=True,
            ),
            Route(
                "GET", "/control/logs/{model}", self._logs,
                Doc("A model's engine log",
                    str,
                    text="Plain text; with `follow`, or Accept: text/event-stream, each line is one event. A browser "
                    "gets a page with `follow`, which grows.",
                    media=("text/plain", "text/event-stream", "text/html"), params=(_LINES, _FOLLOW, _REQUEST),
                    errors=(CallerError, UnknownModel)),
            ),
            Route(
                "GET", "/control/events", self._events,
                Doc("What happened, oldest first",
                    list[EventInfo],
                    text="A list; with `follow`, or Accept: text/event-stream, each entry is one event whose id is "
                    "its number, and Last-Event-ID counts as `since`.",
                    media=("application/json", "text/event-stream"), params=(_SINCE, _OF_MODEL, _FOLLOW),
                    errors=(CallerError, UnknownModel)),
            ),
            Route(
                "GET", "/control/story/{model}", self._story,
                Doc("What happened to a model's engines and why, in words, under earlier servers too",
                    Story, params=(_LAST, _STORY_LINES), errors=(CallerError, UnknownModel)),
            ),
            Route(
                "GET", "/control/openapi.json", self._openapi,
                Doc("This API as an OpenAPI 3.1 document", dict[str, Any]),
            ),
            Route(
                "GET", "/control/docs", self._docs,
                Doc("The same as a page for people", str, media=("text/html",)),
            ),
        ]  # fmt: skip

    def describe(self, routes: Callable[[], tuple[Route, ...]]) -> None:
        """`routes` gives what the API document and its page tell of; it may block."""
        self._described = routes

    async def _models(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, self._host.models())

    async def _units(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, self._host.units())

    async def _status(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, self._host.status())

    async def _devices(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._host.devices())

    async def _health(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._host.health(match.rest or None))

    async def _plan(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._host.preview(match.rest))

    async def _reload(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._host.reload())

    async def _openapi(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_text(exchange, await asyncio.to_thread(self._document), "application/json")

    async def _docs(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_text(exchange, await asyncio.to_thread(self._page), "text/html; charset=utf-8")

    def _document(self) -> bytes:
        from corral.gateway.control.openapi import document  # loaded by those who ask for it

        return encode(document(self._described()))

    def _page(self) -> bytes:
        from corral.gateway.control.page import api_page

        return api_page(self._described()).encode()

    async def _hand_over(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_json(exchange, {"text": await self._host.hand_over()})

    async def _logs(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_LINES, _FOLLOW, _REQUEST))
        name = await self._host.logged(match.rest)
        if asked["request"] is not None:
            found = await self._host.request_lines(name, asked["request"])
            await send_text(exchange, "".join(f"{line}\n" for line in found).encode())
            return
        if asked["follow"] and wants_page(exchange):
            from corral.gateway.control.page import log_page  # as above

            growing = _log_text(self._host, name, asked["lines"])
            await send_feed(exchange, growing, self._heartbeat_s, page=log_page(name).encode())
            return
        if asked["follow"] or wants_events(exchange):
            await send_feed(exchange, _log_feed(self._host, name, asked["lines"]), self._heartbeat_s)
            return
        files = self._host.log_files(name)
        text = await asyncio.to_thread(logs.tail, files[-1], asked["lines"], _TAIL_BYTES) if files else ""
        await send_text(exchange, text.encode())

    async def _events(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_SINCE, _OF_MODEL, _FOLLOW))
        since = asked["since"]
        model = None if asked["model"] is None else (await self._host.known(asked["model"])).name
        if asked["follow"] or wants_events(exchange):
            last = (exchange.header(b"last-event-id") or b"").decode("latin-1")
            if last.isascii() and last.isdigit() and len(last) <= 18:
                since = int(last)
            if since > self._host.events.last_seq:
                since = 0  # a number of an earlier server: this one began anew
            await send_feed(exchange, _event_feed(self._host, since, model), self._heartbeat_s)
            return
        entries = self._host.events.since(since, model=model)
        if len(entries) < _THREAD_ENTRIES:
            await send_json(exchange, entries)
        else:
            encoded = await asyncio.to_thread(encode, entries)
            await send_text(exchange, encoded, "application/json")

    async def _story(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_LAST, _STORY_LINES))
        await send_json(
            exchange, await self._host.story(match.rest, last_s=asked["since"] or None, lines=asked["lines"])
        )


def _action(
    verb: str, act: Callable[..., Awaitable[ActionResult]], summary: str, errors: tuple[type[Any], ...]
) -> Route:
    async def handle(exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        asked = action(body)
        await send_json(exchange, await act(asked.model, wait=asked.wait))

    handler: Handler = handle
    return Route(
        "POST", f"/control/{verb}", handler, Doc(summary, ActionResult, takes=ModelAction, errors=errors)
    )  # fmt: skip


def action(body: bytes) -> ModelAction:
    """The body of start, stop and restart. Raises NotJson, or CallerError for a field that is wrong or not known."""
    return read_body(ModelAction, body, _ACTION_HINTS)


async def _event_feed(host: Host, since: int, model: str | None) -> AsyncIterator[bytes]:
    async for entry in host.events.follow(since, model=model):
        yield sse.event(encode(entry).decode(), id=str(entry.seq))


async def _log_text(host: Host, name: str, lines: int) -> AsyncIterator[bytes]:
    """For a page: what an engine writes is text, whatever it looks like."""
    async for chunk in logs.follow(lambda: host.log_files(name), lines=lines):
        yield escape(chunk.decode(errors="replace")).encode()


async def _log_feed(host: Host, name: str, lines: int) -> AsyncIterator[bytes]:
    async for chunk in logs.follow(lambda: host.log_files(name), lines=lines):
        for line in chunk.decode(errors="replace").splitlines():
            yield sse.event(line)
