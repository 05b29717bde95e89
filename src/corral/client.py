"""The client of a running server: how it is found, and one typed method for each control route.

Synchronous and standard library only, so that a command starts fast. A `Client` holds no connection: each call opens
one and closes it, and a stream closes its own when its iterator is closed, which the server takes as "stop".
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from corral.access_client import AccessClient
from corral.api import (
    ActionResult,
    DeviceInfo,
    EventInfo,
    HealthInfo,
    ModelInfo,
    PlanInfo,
    ReloadResult,
    Status,
    Story,
    UnitInfo,
)
from corral.calls import understood
from corral.config.paths import Paths
from corral.connection import Address, Answer, error_from, parse_address, request
from corral.errors import CorralError, EngineGone, Unreachable
from corral.lazy_dataclass import dataclass
from corral.processes import alive
from corral.store_client import StoreClient

if TYPE_CHECKING:
    from corral.api_live import Live


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer as it came; `reasoning` marks what the model thinks before it answers."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """How a chat answer ended, with its rates; milliseconds from the engine where it tells them, else as seen here."""

    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    prompt_ms: float | None
    completion_ms: float | None
    ttft_ms: float | None  # request sent to first piece, waiting and loading included
    load_ms: float | None  # of the model, when this request had to wait for it
    queue_ms: float | None
    total_ms: float
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt_per_s(self) -> float | None:
        return _rate(self.prompt_tokens, self.prompt_ms)

    @property
    def completion_per_s(self) -> float | None:
        return _rate(self.completion_tokens, self.completion_ms)


def _rate(tokens: int | None, ms: float | None) -> float | None:
    return tokens / ms * 1000 if tokens and ms else None


class Client(StoreClient, AccessClient):
    """One server, by its address."""

    @classmethod
    def find(cls, paths: Paths, host: str | None = None, env: Mapping[str, str] | None = None) -> Client:
        """The server at `host`, else at CORRAL_HOST, else the one of this state directory.

        Only the last is looked for: it raises Unreachable when there is none. Raises CallerError for a bad address.
        """
        env = os.environ if env is None else env
        if wanted := host or env.get("CORRAL_HOST"):
            return cls(
                replace(parse_address(wanted), key=env.get("CORRAL_KEY") or None, ca=env.get("CORRAL_CA") or None)
            )
        client = cls(Address(socket=paths.control_socket))
        pid = daemon_pid(paths)
        if pid is not None and not alive(pid) and not client.connects():
            raise Unreachable(
                f"the server that ran here (process {pid}) has ended without a word",
                hint=f"start it again with: corral serve (its last output may be in {paths.state_dir})",
            )
        if not paths.control_socket.exists():
            raise Unreachable("no Corral server is running", hint="start one with: corral serve")
        return client

    def connects(self) -> bool:
        """Whether something takes connections on this unix socket."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(str(self.address.socket)) == 0

    def answers(self, timeout_s: float = 1.0) -> bool:
        """Whether the server is up and takes work."""
        try:
            with request(self.address, "GET", "/ready", timeout_s=timeout_s):
                return True
        except CorralError:
            return False

    def models(self, timeout_s: float = 15.0) -> list[ModelInfo]:
        return self._list(ModelInfo, "/control/models", timeout_s)

    def units(self) -> list[UnitInfo]:
        return self._list(UnitInfo, "/control/units")

    def devices(self) -> list[DeviceInfo]:
        return self._list(DeviceInfo, "/control/devices")

    def health(self, model: str | None = None) -> HealthInfo:
        """Whether the server, or a model, is well. Starts nothing."""
        path = "/control/health" if model is None else f"/control/health/{quote(model, safe='')}"
        return self._one(HealthInfo, "GET", path)

    def status(self) -> Status:
        return self._one(Status, "GET", "/control/status")

    def live(self) -> Live:
        """The server at this moment: devices, units, downloads, rates, the newest events."""
        from corral.api_live import Live

        return self._one(Live, "GET", "/control/live", timeout_s=5.0)

    def start(self, model: str, *, wait: bool = True) -> ActionResult:
        return self._act("start", model, wait)

    def plan(self, model: str) -> PlanInfo:
        """What the next start of the model would run."""
        return self._one(PlanInfo, "GET", f"/control/plan/{quote(model, safe='')}", timeout_s=None)

    def stop(self, model: str, *, wait: bool = True) -> ActionResult:
        return self._act("stop", model, wait)

    def restart(self, model: str, *, wait: bool = True) -> ActionResult:
        return self._act("restart", model, wait)

    def reload(self) -> ReloadResult:
        return self._one(ReloadResult, "POST", "/control/reload", {}, timeout_s=None)

    def logs(self, model: str, lines: int) -> list[str]:
        """The last `lines` lines that the model's engine wrote."""
        with request(self.address, "GET", _logs(model, lines), accept="text/plain", cord=self.cord) as answer:
            return answer.bytes().decode("utf-8", "replace").splitlines()

    def request_lines(self, model: str, request_id: str) -> list[str]:
        """What is known of a request to the model by its id, and what its engine wrote of it."""
        target = f"{_logs(model, 0)}&request={quote(request_id, safe='')}"
        with request(self.address, "GET", target, accept="text/plain", cord=self.cord) as answer:
            return answer.bytes().decode("utf-8", "replace").splitlines()

    def follow_logs(self, model: str, lines: int) -> Iterator[str]:
        """The last `lines` lines, then each new one as it is written. Ends with an error when the server does."""
        target = f"{_logs(model, lines)}&follow=1"
        with self._stream(target) as answer:
            yield from answer.events()
        raise self._ended()

    def events(self, since: int = 0, model: str | None = None) -> list[EventInfo]:
        """The kept entries of the event log numbered above `since`, oldest first."""
        return self._list(EventInfo, _events(since, model))

    def follow_events(self, since: int = 0, model: str | None = None) -> Iterator[EventInfo]:
        """The same, then each new entry as it happens. Ends with an error when the server does."""
        target = _events(since, model)
        with self._stream(target) as answer:
            for data in answer.events():
                yield understood(EventInfo, json.loads(data))
        raise self._ended()

    def story(self, model: str, *, last_s: float | None = None, lines: int = 50) -> Story:
        """What happened to the model's engines in the last `last_s` seconds, or ever: the last `lines` of it."""
        query = urlencode({"since": max(1, round(last_s)) if last_s is not None else 0, "lines": lines})
        return self._one(Story, "GET", f"/control/story/{quote(model, safe='')}?{query}")

    def chat_stream(
        self, model: str, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> Generator[Piece | Finished, None, None]:
        """The answer piece by piece, and at last how it `Finished`; `options` are fields of the request's body.

        Raises the server's error, also when it comes in the middle of the stream, and EngineGone for a silent cut.
        """
        body = {"model": model, "messages": list(messages), "stream": True, **options}
        body.setdefault("stream_options", {"include_usage": True})
        began = time.monotonic()
        target = "/v1/chat/completions"
        with request(self.address, "POST", target, body, accept="text/event-stream", timeout_s=None) as answer:
            seen = _Seen(began)
            for data in answer.events():
                if data == "[DONE]":
                    seen.done = True
                    break
                yield from seen.take(data)
            if not seen.done and seen.finish_reason is None:
                raise EngineGone("the answer broke off", hint=f"see what the engine wrote: corral logs {model}")
            yield seen.finished({name: answer.header(name) for name in _TIMING_HEADERS})

    def detect(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a detector finds in pictures; `body` as docs/vision.md has it."""
        with request(self.address, "POST", "/detect", dict(body), timeout_s=None) as answer:
            found: dict[str, Any] = answer.json()
            return found

    def _stream(self, target: str) -> AbstractContextManager[Answer]:
        return request(self.address, "GET", target, accept="text/event-stream", timeout_s=None, cord=self.cord)

    def _act(self, verb: str, model: str, wait: bool) -> ActionResult:
        return self._one(ActionResult, "POST", f"/control/{verb}", {"model": model, "wait": wait}, timeout_s=None)


_TIMING_HEADERS = ("x-corral-model", "x-corral-unit", "x-corral-queue-ms", "x-corral-load-ms", "x-corral-swap-ms")


class _Seen:
    """What a chat stream has told so far."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._first: float | None = None
        self._last = began
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.done = False

    def take(self, data: str) -> Iterator[Piece]:
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise EngineGone("the answer holds something that is no JSON", hint="see: corral logs") from error
        if not isinstance(chunk, dict):
            return
        if isinstance(found := chunk.get("error"), dict):
            raise error_from(found)
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta") or {}
            for key, reasoning in (("reasoning_content", True), ("content", False)):
                if text := delta.get(key):
                    self._last = time.monotonic()
                    self._first = self._first or self._last
                    yield Piece(text, reasoning)

    def finished(self, headers: Mapping[str, str | None]) -> Finished:
        ended, usage, timings = time.monotonic(), self._usage, self._timings
        ttft_ms = None if self._first is None else (self._first - self._began) * 1000
        # Without the engine's own timings the first token's cost belongs to the prompt, so the rate leaves it out too.
        spread_ms = None if self._first is None else (self._last - self._first) * 1000
        return Finished(
            finish_reason=self.finish_reason,
            prompt_tokens=timings.get("prompt_n", usage.get("prompt_tokens")),
            completion_tokens=timings.get("predicted_n", usage.get("completion_tokens")),
            prompt_ms=timings.get("prompt_ms"),
            completion_ms=timings.get("predicted_ms", spread_ms),
            ttft_ms=ttft_ms,
            load_ms=_number(headers.get("x-corral-load-ms")),
            queue_ms=_number(headers.get("x-corral-queue-ms")),
            total_ms=(ended - self._began) * 1000,
            headers={name: value for name, value in headers.items() if value is not None},
        )


def daemon_pid(paths: Paths) -> int | None:
    """The process that the state directory's daemon file names, alive or not."""
    found = daemon_record(paths).get("pid")
    return found if isinstance(found, int) and found > 0 else None


def daemon_record(paths: Paths) -> dict[str, Any]:
    """What the daemon wrote about itself; empty when there is nothing readable."""
    try:
        data = json.loads(paths.daemon_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _logs(model: str, lines: int) -> str:
    return f"/control/logs/{quote(model, safe='')}?lines={lines}"


def _events(since: int, model: str | None) -> str:
    query: dict[str, Any] = {"since": since}
    if model is not None:
        query["model"] = model
    return f"/control/events?{urlencode(query)}"
