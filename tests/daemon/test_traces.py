"""Traces of requests, as a real receiver of OTLP gets them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import Listen, Settings
from corral.config.settings import Traces as Wanted
from corral.events import EventLog
from corral.gateway.http.headers import upward
from corral.metrics.record import Record
from corral.observability.traces import Traces, endpoint_of, operation_of, wanted
from support.asking import CHAT, ask
from support.otlp import Collector, Seen
from support.server import Server

END = (
    b'"usage":{"completion_tokens":9,"prompt_tokens":10,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":4}}}'
)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def record(**more: Any) -> Record:
    now = clock.monotonic()
    base: dict[str, Any] = {
        "began": now - 10, "ended": now, "granted": now - 6, "first": now - 5, "model": "demo", "unit": "demo.1",
        "dialect": "openai", "route": "/v1/chat/completions", "status": 200, "outcome": "", "key": "k1", "stream": True,
        "chunks": 9, "end": END, "request_id": b"req_1",
    }  # fmt: skip
    return Record(**(base | more))


def tree(spans: list[Seen]) -> dict[str, Seen]:
    return {each.name: each for each in spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as each:
        yield each


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


async def test_tree(collector: Collector) -> None:
    """One request is one tree: its line, within it the load it waited for, its first token, and its stream."""
    events = EventLog()
    each = Traces(Wanted(collector.url), events, (Listen(port=8642),), {"k1": "laptop"}.__getitem__)
    one = record(retries=2)
    wall = clock.wall() - clock.monotonic()
    events.post("unit.state", "", model="demo", unit="demo.1", after="starting")
    events.post("unit.state", "", model="demo", unit="demo.1", after="loading")
    events.post("unit.state", "", model="demo", unit="demo.1", before="loading", after="ready")
    for entry, at in zip(events.since(), (8, 8, 7), strict=True):
        object.__setattr__(entry, "wall_s", one.ended - at + wall)  # as if it had happened while the request waited
    each.take([one])
    spans = tree(await asyncio.to_thread(collector.spans, 5))
    await each.aclose()
    root = spans["chat demo"]
    assert set(spans) == {"chat demo", "queue", "load", "first token", "stream"}
    assert {spans[name].parent for name in ("queue", "first token", "stream")} == {root.id}
    assert (root.parent, root.kind, root.error) == ("", 2, False)  # a server's
    assert spans["load"].parent == spans["queue"].id
    assert len({span.trace for span in spans.values()}) == 1
    lengths = {name: round((span.ended - span.began) / 1e9, 3) for name, span in spans.items()}
    assert lengths == {"chat demo": 10, "queue": 4, "load": 1, "first token": 1, "stream": 5}
    assert spans["queue"].began == root.began
    assert spans["stream"].ended == root.ended
    assert abs(root.ended / 1e9 - clock.wall()) < 300
    assert root.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "corral",
        "gen_ai.request.model": "demo",
        "gen_ai.response.model": "demo",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": 8642,
        "corral.dialect": "openai",
        "corral.stream": True,
        "corral.unit": "demo.1",
        "corral.key": "laptop",
        "corral.request_id": "req_1",
        "corral.retries": 2,
    }
    assert root.resource["service.name"] == "corral"
    assert collector.paths == ["/v1/traces"]


@pytest.mark.parametrize(
    ("more", "names", "error"),
    [
        ({"stream": False}, {"chat demo", "queue", "answer"}, False),
        (
            {"granted": None, "first": None, "status": 404, "outcome": "model_not_found", "model": ""},
            {"chat", "queue"},
            False,
        ),
        ({"granted": None, "first": None, "status": 503, "outcome": "queue_full"}, {"chat demo", "queue"}, True),
        ({"outcome": "engine_gone"}, {"chat demo", "queue", "first token", "stream"}, True),
        ({"outcome": "left"}, {"chat demo", "queue", "first token", "stream"}, False),
        ({"route": "/v1/embeddings", "stream": False}, {"embeddings demo", "queue", "answer"}, False),
    ],
)  # fmt: skip
async def test_ends(collector: Collector, more: dict[str, Any], names: set[str], error: bool) -> None:
    """What did not come so far has no span; only the server's own faults and broken streams are errors."""
    each = Traces(Wanted(collector.url), EventLog(), (), str)
    each.take([record(**more)])
    await each.aclose()
    spans = tree(collector.spans(len(names)))
    assert set(spans) == names
    root = next(span for span in spans.values() if not span.parent)
    assert root.error is error
    assert root.attributes.get("error.type") == more.get("outcome")
    assert "server.address" not in root.attributes


async def test_parent(collector: Collector) -> None:
    """A client's span is the tree's parent, and what it says of sampling counts; one that makes no sense is none."""
    each = Traces(Wanted(collector.url, 0.0), EventLog(), (), str)
    each.take([
        record(trace=f"00-{TRACE}-{SPAN}-01".encode()),
        record(trace=f"00-{TRACE}-{SPAN}-00".encode()),
        record(trace=b"00-xyz-1-01\xff"),
        record(),
    ])  # fmt: skip
    await each.aclose()
    spans = collector.spans()
    assert {span.trace for span in spans} == {TRACE}
    assert [span.parent for span in spans if span.name == "chat demo"] == [SPAN]


def test_passed_on() -> None:
    """A client's span reaches the engine as it came."""
    assert (b"traceparent", b"00-x-y-01") in upward([(b"traceparent", b"00-x-y-01")], b"req_1", identity=False)


async def test_ratio(collector: Collector) -> None:
    """Of those without a parent the share that is wanted is traced, whole trees of them."""
    each = Traces(Wanted(collector.url, 0.5), EventLog(), (), str)
    each.take([record() for _ in range(200)])
    await each.aclose()
    spans = collector.spans()
    roots = [span for span in spans if not span.parent]
    assert 50 < len(roots) < 150
    assert len(spans) == 4 * len(roots)


async def test_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is not there is said once, also when it is back; taking goes on, and closing is bounded."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    events = EventLog()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    each = Traces(Wanted(f"http://127.0.0.1:{port}"), events, (), str)
    each.take([record()])
    await _said(events, "traces.failing")
    each.take([record()])
    with Collector(port) as late:
        while not late.paths:
            each.take([record()])
            await asyncio.sleep(0.2)
        await _said(events, "traces.delivered")
    await each.aclose()
    said = [entry for entry in events.since() if entry.kind == "traces.failing"]
    assert f"traces do not reach http://127.0.0.1:{port}/v1/traces" in said[0].text
    assert len(said) <= 2  # the receiver has gone again at the end


async def _said(events: EventLog, kind: str) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    while not any(entry.kind == kind for entry in events.since()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


def test_where() -> None:
    """The configuration goes before OpenTelemetry's variables, and these before its default."""
    base, whole = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    assert endpoint_of(Wanted("http://a:1"), {base: "http://b:1", whole: "http://c:1/x"}) == "http://a:1/v1/traces"
    assert endpoint_of(Wanted("http://a:1/v1/traces/"), {}) == "http://a:1/v1/traces"
    assert endpoint_of(Wanted(), {base: "http://b:1/otel/"}) == "http://b:1/otel/v1/traces"
    assert endpoint_of(Wanted(), {base: "http://b:1", whole: "http://c:1/x"}) == "http://c:1/x"
    assert endpoint_of(Wanted(), {}) == "http://localhost:4318/v1/traces"


def test_whether() -> None:
    """Traces are sent where the configuration or a variable says so, and nowhere else."""
    on = Settings({}, traces=Wanted(ratio=0.5))
    assert wanted(Settings({}), {}) is None
    assert wanted(Settings({}), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1"}) == Wanted()
    assert wanted(on, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1"}) == on.traces
    assert wanted(on, {"OTEL_SDK_DISABLED": "true"}) is None
    assert wanted(on, {"OTEL_TRACES_EXPORTER": "none"}) is None


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("/v1/chat/completions", "chat"), ("/v1/completions", "text_completion"), ("/api/chat", "chat"),
        ("/api/generate", "text_completion"), ("/v1/messages", "chat"), ("/v1/responses", "chat"),
        ("/api/embed", "embeddings"), ("/v1/rerank", "rerank"), ("/detect", "detect"), ("/", "request"),
    ],
)  # fmt: skip
def test_operations(route: str, name: str) -> None:
    """Routes of every dialect are what the conventions call them, where they have a word."""
    assert operation_of(route) == name


def test_light() -> None:
    """A server loads nothing of OpenTelemetry before it makes spans."""
    code = (
        "import corral.daemon, corral.observability.traces, sys; corral.observability.traces.installed(); "
        "print([m for m in sys.modules if 'telemetry' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'([\w.]+)'", done.stdout))
    assert not {each for each in loaded if each.startswith("opentelemetry.sdk.") or each.endswith("trace_exporter")}


def test_not_installed(paths: Paths, tmp_path: Path) -> None:
    """Without the extra, a configuration that wants traces is refused with the command that installs it."""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    server = Server(paths, config="traces: {}\nmodels: []", env={"PYTHONPATH": str(hide)})
    server.write(server.config)
    done = subprocess.run(server.command(), env=server.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "`traces` needs OpenTelemetry, which is not installed" in done.stdout + done.stderr
    assert "pip install 'corral[otel]'" in done.stdout + done.stderr


def test_of_a_server(paths: Paths, collector: Collector) -> None:
    """A real server with a real engine: each request is a tree, whatever way it took, below its client's span."""
    config = f"traces: {{endpoint: '{collector.url}', ratio: 1}}\nmodels: [{{name: demo, source: 'builtin:demo'}}]"
    chat = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    env = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}
    with Server(paths, config=config, env=env) as server:
        assert ask(server.url, CHAT, None, chat, traceparent=f"00-{TRACE}-{SPAN}-01").status == 200
        assert ask(server.url, CHAT, None, {**chat, "stream": True}, x_request_id="second").status == 200
        assert ask(server.url, CHAT, None, {**chat, "model": "none"}).status == 404
        assert ask(server.url, "/api/chat", None, {**chat, "stream": False}).status == 200
        assert server.end() == 0
    spans = collector.spans(4 + 4 + 2 + 3)
    roots = [span for span in spans if span.name.startswith("chat")]
    first, second, refused, ollama = sorted(roots, key=lambda span: span.began)
    assert (first.trace, first.parent) == (TRACE, SPAN)
    assert {span.name for span in spans if span.trace == TRACE} == {"chat demo", "queue", "load", "answer"}
    assert {span.name for span in spans if span.trace == second.trace} == {
        "chat demo",
        "queue",
        "first token",
        "stream",
    }
    assert second.attributes["corral.request_id"] == "second"
    assert 0 < first.attributes["gen_ai.usage.output_tokens"] <= 8
    assert (refused.attributes["http.response.status_code"], refused.attributes["error.type"]) == (
        404,
        "model_not_found",
    )
    assert (ollama.attributes["http.route"], ollama.attributes["corral.dialect"]) == ("/api/chat", "ollama")
    assert {span.resource["deployment.environment"] for span in spans} == {"test"}
    for span in spans:
        assert span.began <= span.ended
        assert "hi" not in json.dumps(span.attributes).split('"')
