"""`/metrics` and `/control/live` of a real server with real engines, read by prometheus-client."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from corral.api_access import KeyAsk
from corral.api_live import Live, LiveUnit
from corral.config.paths import Paths
from corral.errors import UnknownModel
from corral.metrics.catalogue import METRICS, REASONS
from support.asking import CHAT, Reply, ask
from support.exposition import read
from support.prometheus import promtool
from support.server import Server, until

CONFIG = """
require_keys: true
memory: {cpu: 4GiB}
max_active: 1
models:
  - {name: demo, source: 'builtin:demo', idle_timeout: never, args: [--threads, '1']}
  - {name: second, source: 'builtin:demo', args: [--threads, '1']}
"""
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
ELSEWHERE = {
    "corral_device_temperature_celsius", "corral_device_power_watts", "corral_device_power_limit_watts",
}  # fmt: skip
"""What this machine does not have."""

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Watched:
    """A server that has done a little of everything, and the keys to ask it with."""

    def __init__(self, server: Server) -> None:
        self.server, made = server, server.client.create_key
        self.infer = made(KeyAsk("someone", tokens_per_day=100_000))
        self.metrics = made(KeyAsk("prometheus", scopes=["metrics"]))
        self.told = made(KeyAsk(self.infer.secret))  # somebody wrote a secret where a name belongs

    def chat(self, model: str, key: str, **more: Any) -> Reply:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, **more}
        return ask(self.server.url, CHAT, key, body)

    def scrape(self, **headers: str) -> Reply:
        return ask(self.server.url, "/metrics", self.metrics.secret, None, tls=None, **headers)

    def families(self) -> set[str]:
        """The names of all families that have samples; of counters and infos as the catalogue has them."""
        found = read(self.scrape().body.decode())
        return {each.name + ("_total" if each.type == "counter" else "") for each in found if each.samples}

    def series(self) -> Series:
        return series(self.scrape().body.decode())

    def engine_told(self) -> float | None:
        """Tokens that the engine says it wrote; None as long as it was not asked."""
        return value(self.series(), "llamacpp:tokens_predicted_total", model="demo", unit="demo")


def series(text: str, openmetrics: bool = False) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(text, openmetrics)
        for sample in family.samples
    }


def value(found: Series, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


@pytest.fixture(scope="module")
def watched(module_paths: Paths) -> Iterator[Watched]:
    with Server(module_paths, CONFIG) as server:
        made = Watched(server)
        key = made.infer.secret
        assert made.chat("demo", key, stream=True).status == 200
        assert made.chat("second", made.told.secret).status == 200  # demo makes room
        assert made.chat("demo", key).status == 200
        assert made.chat("nobody", key).status == 404
        (unit,) = [unit for unit in server.client.units() if unit.model == "demo"]
        assert unit.pid is not None
        os.kill(unit.pid, signal.SIGKILL)
        failed = "corral_engine_failures_total"
        until(lambda: value(made.series(), failed, model="demo", reason="signal"), "its end")
        assert value(made.series(), "corral_restarts_total", model="demo", reason="signal") == 0  # nobody asked for it
        assert made.chat("demo", key, stream=True).status == 200
        yield made


def test_every_metric_that_can_have_a_value_here_has_one(watched: Watched) -> None:
    wanted = {metric.name for metric in METRICS} - ELSEWHERE
    until(lambda: wanted <= watched.families(), f"{sorted(wanted - watched.families())}", 60.0)


def test_what_happened_is_counted_with_its_reason(watched: Watched) -> None:
    found = watched.series()
    asked = {"dialect": "openai", "key": "someone"}
    assert value(found, "corral_requests_total", model="demo", status="200", **asked) == 3
    assert value(found, "corral_requests_total", model="other", status="404", **asked) == 1
    assert value(found, "corral_request_errors_total", model="other", code=UnknownModel.code) == 1
    assert value(found, "corral_evictions_total", model="demo", reason="room") == 1
    assert value(found, "corral_restarts_total", model="demo", reason="signal") == 1
    assert value(found, "corral_engine_failures_total", model="demo", reason="signal") == 1
    assert value(found, "corral_load_seconds_count", model="demo") == 3
    assert value(found, "corral_swap_seconds_count", model="second") == 1
    assert value(found, "corral_time_to_first_token_seconds_count", model="demo") == 2
    tokens = value(found, "corral_completion_tokens_total", model="demo")
    assert tokens and value(found, "corral_key_tokens_total", key="someone", kind="completion") == tokens
    assert value(found, "corral_key_budget_tokens", key="someone", period="day") == 100_000
    assert value(found, "corral_unit_state", model="demo", unit="demo", state="ready") == 1
    assert value(found, "corral_device_memory_budget_bytes", device="cpu") == 4 << 30


def test_what_may_happen_is_there_before_it_does(watched: Watched) -> None:
    """So that the first of it is an increase to Prometheus."""
    found = watched.series()
    for metric, reasons in REASONS.items():
        assert all(value(found, metric, model="demo", reason=reason) is not None for reason in reasons), metric
    asked = {"model": "demo", "dialect": "openai", "key": "someone"}
    assert [value(found, "corral_requests_total", status=each, **asked) for each in ("502", "503")] == [0, 0]


def test_a_footprint_is_told_as_it_was_predicted_and_as_it_was_measured(watched: Watched) -> None:
    demo = {"model": "demo", "unit": "demo", "device": "cpu"}

    def both() -> tuple[float, float] | None:
        found = watched.series()
        measured = value(found, "corral_footprint_bytes", **demo, origin="measured")
        predicted = value(found, "corral_footprint_bytes", **demo, origin="predicted")
        return (predicted, measured) if predicted and measured else None

    predicted, measured = until(both, "the measure")
    assert 0.5 < predicted / measured < 2


def test_both_formats_tell_the_same_and_neither_goes_down(watched: Watched) -> None:
    until(watched.engine_told, "the engine's own metrics")
    plain, reply = watched.series(), watched.scrape(accept=OPENMETRICS)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = read(reply.body.decode(), openmetrics=True)
    later = series(reply.body.decode(), openmetrics=True)
    assert plain.keys() <= later.keys()  # something may have happened in between
    growing = [each for each in families if each.type in ("counter", "histogram")]
    assert len(growing) > 20
    for family in growing:
        for sample in family.samples:
            before = plain[sample.name, tuple(sorted(sample.labels.items()))]
            assert sample.value >= before, sample
    requests = [key for key in later if key[0] == "corral_requests_total"]
    assert [later[key] for key in requests] == [plain[key] for key in requests], "to scrape is not to use"


def test_engines_tell_their_own_with_labels(watched: Watched) -> None:
    assert until(watched.engine_told, "the engine's own metrics") >= 1


def test_it_is_compressed_for_who_wants_that_and_headed_for_who_wants_no_more(watched: Watched) -> None:
    reply = watched.scrape(accept_encoding="gzip")
    assert reply.headers["content-encoding"] == "gzip" and b"corral_build_info" in gzip.decompress(reply.body)
    assert "content-encoding" not in watched.scrape(accept_encoding="gzip;q=0, identity").headers
    head = watched.scrape(method="HEAD")
    assert (head.status, head.body) == (200, b"") and int(head.headers["content-length"]) > 1000
    also = ask(watched.server.url, "/control/metrics", watched.metrics.secret)
    assert b"corral_build_info" in also.body
    assert ask(watched.server.url, "/metrics?name=x", watched.metrics.secret).status == 400


def test_only_who_may_read_metrics_does_and_nobody_reads_secrets(watched: Watched) -> None:
    url = watched.server.url
    assert ask(url, "/metrics").status == 401
    assert ask(url, "/metrics", watched.infer.secret).status == 403
    assert ask(url, "/control/live", watched.metrics.secret).status == 403
    text = watched.scrape().body.decode()
    assert "ck_" not in text and watched.told.key.id in text


def test_live_tells_everything_at_this_moment(watched: Watched) -> None:
    watched.chat("demo", watched.infer.secret, stream=True)

    def seen() -> tuple[Live, LiveUnit] | None:
        """Once the last request is counted, and the second in which it was written is over."""
        live = watched.server.client.live()
        demo = next(unit for unit in live.units if unit.model == "demo")
        return (live, demo) if demo.requests >= 4 and demo.tokens_per_s else None

    live, demo = until(seen, "the request")
    assert (demo.state, demo.engine, demo.slots, demo.queued) == ("ready", "llama.cpp", 1, 0)
    assert demo.unit.startswith("demo.") and demo.restarts == 1 and demo.context > 0
    assert demo.context_used and demo.first_token_p50_ms and demo.first_token_p95_ms
    assert 0 < len(demo.history) <= 60 and any(demo.history) and any(live.history)
    second = next(unit for unit in live.units if unit.model == "second")
    assert (second.state, second.busy, second.held_bytes) == ("stopped", 0, None)
    (cpu,) = [device for device in live.devices if device.name == "cpu"]
    assert cpu.total_bytes and cpu.budget_bytes == 4 << 30
    assert live.events and [each.seq for each in live.events] == sorted(each.seq for each in live.events)
    assert (live.pid, live.downloads) == (watched.server.pid, [])


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_say_of_what_is_ours(watched: Watched) -> None:
    done = promtool("check", "metrics", input=watched.scrape().body.decode())
    ours = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("llamacpp:")]
    assert done.returncode in (0, 3) and not ours  # 3: words on style, which are of llama.cpp's own


def test_a_server_that_nobody_configured_tells_what_models_may_take(paths: Paths) -> None:
    """Without `memory` that is what the scheduler goes by: all of the device, less the headroom. An empty store takes
    something too, and a start that finds no GPU although one is asked for is one with less."""
    config = "models: [{name: demo, source: 'builtin:demo', gpu_layers: 99, gpu_backend: cuda}]"
    with Server(paths, config) as server:

        def scraped() -> Series:
            return series(ask(server.url, "/metrics").body.decode())

        server.client.start("demo")
        (cpu,) = [each for each in server.client.devices() if each.name == "cpu"]
        assert cpu.total_bytes is not None and cpu.budget_bytes == cpu.total_bytes - cpu.headroom_bytes
        found = until(lambda: (now := scraped()) and value(now, "corral_store_bytes") is not None and now, "the store")
        assert value(found, "corral_device_memory_budget_bytes", device="cpu") == cpu.budget_bytes
        assert value(found, "corral_unit_degraded", model="demo", unit="demo") == 1
        assert value(found, "corral_fallbacks_total", model="demo", reason="cpu") == 1
        assert [each.budget_bytes for each in server.client.live().devices if each.name == "cpu"] == [cpu.budget_bytes]
