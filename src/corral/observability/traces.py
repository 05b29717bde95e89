"""`Traces`: one tree of spans for each request, made of its record after it has ended, and sent by OpenTelemetry.

Records and the loads that requests waited for go to a thread, which makes spans of them with the times that they have;
OpenTelemetry's own thread sends them in batches. An endpoint that is slow or down costs spans, never requests.
OpenTelemetry is loaded by that thread, where traces are wanted.

Source: OpenTelemetry's semantic conventions for generative AI, HTTP and errors; W3C Trace Context (`traceparent`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from corral import __version__, clock
from corral.config.settings import Listen, Settings
from corral.config.settings import Traces as Wanted
from corral.errors import ConfigError
from corral.events import EventLog
from corral.gateway.dialects.usage import usage_of
from corral.metrics.record import Record

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, Tracer

INSTALL: Final = "install it with: pip install 'corral[otel]'"
BATCHES: Final = 100
"""Batches of records, one a second, that may wait for the thread; more are left out, and counted."""
_CLOSE_S: Final = 3.0
_LOADS: Final = 200
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT: Final = "http://localhost:4318"
_PATH: Final = "/v1/traces"
_OPERATIONS: Final = (
    ("chat/completions", "chat"), ("messages", "chat"), ("responses", "chat"), ("/chat", "chat"),
    ("completions", "text_completion"), ("completion", "text_completion"), ("generate", "text_completion"),
    ("infill", "text_completion"), ("embeddings", "embeddings"), ("embedding", "embeddings"), ("embed", "embeddings"),
)  # fmt: skip
"""What the conventions call what a route does, by how its path ends."""


class Load(NamedTuple):
    """An engine's start, in wall seconds."""

    unit: str
    began: float
    ended: float


def wanted(settings: Settings, environment: Mapping[str, str] = os.environ) -> Wanted | None:
    """Where traces are to go: as configured, else where OpenTelemetry's own variables name an endpoint."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return None
    if settings.traces is not None:
        return settings.traces
    return Wanted() if any(environment.get(name) for name in _ENDPOINTS) else None


def installed() -> bool:
    """Whether OpenTelemetry's packages are here. Loads none of them."""
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
        )
    except ImportError:
        return False


def check_installed() -> None:
    """Raises ConfigError where what traces need is not here."""
    if not installed():
        raise ConfigError("`traces` needs OpenTelemetry, which is not installed", hint=INSTALL)


def endpoint_of(given: Wanted, environment: Mapping[str, str] = os.environ) -> str:
    """The address that spans are posted to."""
    if given.endpoint is None and (whole := environment.get(_ENDPOINTS[0])):
        return whole  # the one variable that is taken as it is
    base = (given.endpoint or environment.get(_ENDPOINTS[1]) or _DEFAULT).rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


class Traces:
    """Takes records on the event loop. Close it."""

    def __init__(
        self,
        given: Wanted,
        events: EventLog,
        listen: Sequence[Listen],
        key_name: Callable[[str], str],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._given, self._events, self._key_name = given, events, key_name
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint_of(given, environment)
        tcp = [each for each in listen if each.path is None and each.port]
        # With several addresses nobody notes which one a request came to.
        self._server = (tcp[0].host, tcp[0].port) if len(tcp) == 1 and len(listen) == 1 else None
        self._seen = events.last_seq
        self._begun: dict[str, float] = {}
        self._loads: deque[Load] = deque(maxlen=_LOADS)
        self._waiting: queue.Queue[tuple[list[Record], list[Load], float] | None] = queue.Queue(BATCHES)
        self._exporter: SpanExporter | None = None
        self._failing = False
        self.left_out = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def take(self, records: list[Record]) -> None:
        """Has spans made of `records`. Costs a look through the latest events, and no more."""
        self._note_loads()
        offset_s = clock.wall() - clock.monotonic()
        try:
            self._waiting.put_nowait((records, list(self._loads), offset_s))
        except queue.Full:
            self.left_out += len(records)

    async def aclose(self) -> None:
        """Sends what is there, for a few seconds at most."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_S)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # ends its pauses between tries; the thread goes with the process

    def _note_loads(self) -> None:
        entries, self._seen = self._events.since(self._seen), self._events.last_seq
        for each in entries:
            if each.kind != "unit.state" or each.unit is None:
                continue
            after = each.data.get("after")
            if after == "starting":
                self._begun[each.unit] = each.wall_s
            elif after != "loading":
                began = self._begun.pop(each.unit, None)
                if began is not None and after == "ready":
                    self._loads.append(Load(each.unit, began, each.wall_s))

    # In the thread.

    def _run(self) -> None:
        try:
            provider = self._begin()
        except Exception as error:  # noqa: BLE001 - another package's set-up: a server without traces goes on
            self._say("traces.failing", f"traces cannot be made: {type(error).__name__}: {error}")
            return
        tracer = provider.get_tracer("corral", __version__)
        while (batch := self._waiting.get()) is not None:
            records, loads, offset_s = batch
            for record in records:
                try:
                    self._trace(tracer, record, loads, offset_s)
                except Exception as error:  # noqa: BLE001 - one odd record must not end all traces
                    self._say_once(f"a request could not be traced: {type(error).__name__}: {error}")
        provider.shutdown()

    def _begin(self) -> TracerProvider:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        words = _Words()
        resource = Resource.create({"service.name": "corral", "service.version": __version__})
        if os.environ.get("OTEL_SERVICE_NAME"):
            resource = resource.merge(Resource({"service.name": os.environ["OTEL_SERVICE_NAME"]}))
        sampler = None if self._given.ratio is None else ParentBased(TraceIdRatioBased(self._given.ratio))
        self._exporter = _told(OTLPSpanExporter(endpoint=self._endpoint), words, self._delivered, self._missed)
        provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(self._exporter))
        return provider

    def _trace(self, tracer: Tracer, record: Record, loads: Sequence[Load], offset_s: float) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        def moment(seconds: float) -> int:
            return int((seconds + offset_s) * 1e9)

        operation = operation_of(record.route)
        root = tracer.start_span(
            f"{operation} {record.model}".rstrip(), _parent(record.trace), SpanKind.SERVER,
            self._attributes(record, operation), start_time=moment(record.began),
        )  # fmt: skip
        inside = set_span_in_context(root)

        def part(name: str, began: float, ended: float, within: Context = inside, **more: str) -> Span:
            span = tracer.start_span(name, within, attributes=more, start_time=moment(began))
            span.end(moment(max(began, ended)))
            return span

        if root.is_recording():
            granted = record.granted
            line = part("queue", record.began, record.ended if granted is None else granted)
            for load in loads if granted is not None else ():
                began, ended = load.began - offset_s, load.ended - offset_s
                if load.unit == record.unit and granted is not None and ended > record.began and began < granted:
                    part(
                        "load", max(began, record.began), min(ended, granted), set_span_in_context(line),
                        **{"corral.unit": load.unit},
                    )  # fmt: skip
            if granted is not None and record.first is not None:
                part("first token" if record.stream else "answer", granted, record.first)
                if record.stream:
                    part("stream", record.first, record.ended)
            if record.status >= 500 or (record.status < 400 and record.outcome not in ("", "left")):
                root.set_status(Status(StatusCode.ERROR))  # what a client did wrong is no error of the server's
        root.end(moment(record.ended))

    def _attributes(self, record: Record, operation: str) -> dict[str, str | int | bool]:
        found: dict[str, str | int | bool] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "corral",
            "http.request.method": "POST",
            "http.route": record.route,
            "corral.dialect": record.dialect,
            "corral.stream": record.stream,
        }
        if record.status:
            found["http.response.status_code"] = record.status
        if record.model:
            found["gen_ai.request.model"] = found["gen_ai.response.model"] = record.model
        if self._server is not None:
            found["server.address"], found["server.port"] = self._server
        if (usage := usage_of(record.end)) is not None:
            found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"] = usage.prompt, usage.completion
            found["gen_ai.usage.cache_read.input_tokens"] = usage.cached
        if record.outcome:
            found["error.type"] = record.outcome
        for name, value in (
            ("corral.unit", record.unit),
            ("corral.key", self._key_name(record.key) if record.key else ""),
            ("corral.request_id", record.request_id.decode("latin-1")),
            ("corral.retries", record.retries),
            ("corral.resumes", record.resumes),
        ):
            if value:
                found[name] = value
        return found

    def _delivered(self) -> None:
        if self._failing:
            self._failing = False
            self._say("traces.delivered", f"traces reach {_shown(self._endpoint)} again")

    def _missed(self, why: str) -> None:
        self._say_once(f"traces do not reach {_shown(self._endpoint)}: {why}")

    def _say_once(self, text: str) -> None:
        if not self._failing:
            self._failing = True
            self._say("traces.failing", text)

    def _say(self, kind: str, text: str) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._events.post, kind, text)


def operation_of(route: str) -> str:
    """What a route does, as the conventions have it; else its own last word."""
    path = route.rstrip("/")
    return next((name for end, name in _OPERATIONS if path.endswith(end)), path.rpartition("/")[2] or "request")


def _parent(traceparent: bytes) -> Context | None:
    """The client's span, if it named one that makes sense."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not traceparent:
        return Context()
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent.decode("latin-1")}, Context())


class _Words(logging.Handler):
    """Keeps the last thing that OpenTelemetry's own loggers said, in place of printing it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _told(
    exporter: SpanExporter, words: _Words, delivered: Callable[[], None], missed: Callable[[str], None]
) -> SpanExporter:
    """`exporter`, which tells how it went."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Told(SpanExporter):  # type: ignore[misc, unused-ignore]  # it is not installed everywhere
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            words.last = ""
            try:
                result = exporter.export(spans)
            except Exception as error:  # noqa: BLE001 - whatever its HTTP client may raise: the spans are lost
                result, words.last = SpanExportResult.FAILURE, f"{type(error).__name__}"
            if result is SpanExportResult.SUCCESS:
                delivered()
            else:
                missed(" ".join(words.last.split())[:300] or "it does not take them")
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return bool(exporter.force_flush(timeout_millis))

    return Told()


def _shown(endpoint: str) -> str:
    """Without what could be secret."""
    parts: Any = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
