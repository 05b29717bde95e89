"""What it costs to be watched: scrapes of `/metrics` and looks at `/control/live`, of a server with 20 models and 10
keys while 256 streams run."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench import load
from bench.frame import Figure, main, percentile, sized
from bench.gateway import MODEL, PACE_MS, STREAMS, cpu_s, engine, request_bytes
from bench.serving import START_S, Corral, corral, scratch
from corral.api_access import KeyAsk
from corral.client import Client
from corral.connection import Address

WHAT = (
    "A server with 20 models, each with an engine of fixed bytes that has metrics of its own, after requests of 10 "
    "keys to each of them. Times are those of whole scrapes as Prometheus sends them (OpenMetrics, gzip), one every "
    "250 ms beside 256 streams with an event every 44 ms each, in turns with `/health`. CPU is the whole server's, of "
    "scrapes without any other load, less that of the same time without scrapes, for one every 5 s; of "
    "`/control/live` for one a second. `added_gap_p99_ms` is what the 99th percentile of the time between two events "
    "of those streams has more with a scrape every 250 ms than without."
)
MODELS, KEYS = 20, 10
EVERY_S = 0.25
AS_PROMETHEUS = {
    "accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "accept-encoding": "gzip",
}


def models_yaml(program: Path) -> str:
    names = [MODEL, *(f"model-{number}" for number in range(1, MODELS))]
    return "max_queue: 1000\nmodels:\n" + "".join(
        f"  - {{name: {name}, source: 'builtin:demo', executable: {program}, idle_timeout: never, context: 64, "
        f"parallel: {STREAMS if name == MODEL else 4}}}\n"
        for name in names
    )


def asked(server: Corral, path: str) -> tuple[float, int]:
    """How long one question takes, connection included, and how long the answer is."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(*server.address, timeout=START_S)
    try:
        connection.request("GET", path, headers=AS_PROMETHEUS)
        answer = connection.getresponse()
        size = len(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
    finally:
        connection.close()
    return time.perf_counter() - began, size


def used(server: Corral, place: Path) -> None:
    """Has every key ask every model."""
    client = Client(Address(socket=next((place / "main" / "runtime").rglob("corral.sock"))))
    secrets = [client.create_key(KeyAsk(f"key {number}")).secret for number in range(KEYS)]
    for model in [each["name"] for each in server.control("GET", "models")]:
        server.control("POST", "start", {"model": model})
        for secret in secrets:
            for stream in (False, True):
                connection = http.client.HTTPConnection(*server.address, timeout=START_S)
                said = {"model": model, "messages": [], "max_tokens": 4, "stream": stream}
                head = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
                connection.request("POST", "/v1/chat/completions", json.dumps(said), head)
                connection.getresponse().read()
                connection.close()


@contextmanager
def streams(server: Corral, chunks: int) -> Iterator[Future[load.Load]]:
    """The streams, from a process of their own."""
    request = request_bytes(max_tokens=chunks, stream=True, pace_ms=PACE_MS)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = pool.submit(load.run, server.address, request, STREAMS, 1)
        yield running
        running.result()


def beside_streams(server: Corral, chunks: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Times of scrapes and of `/health` beside them, and the gaps of streams without and with scrapes."""
    scrapes, healths = list[float](), list[float]()
    with streams(server, chunks) as alone:
        pass
    with streams(server, chunks) as watched:
        while not watched.done():
            scrapes.append(asked(server, "/metrics")[0])
            time.sleep(EVERY_S / 2)
            healths.append(asked(server, "/health")[0])
            time.sleep(EVERY_S / 2)
    return scrapes, healths, alone.result().gaps_s, watched.result().gaps_s


def cost_s(server: Corral, path: str, count: int) -> float:
    """Processor time of the server for one question, with what it does anyway taken off."""
    pid, began, before = server.process.pid, time.perf_counter(), cpu_s(server.process.pid)
    for _ in range(count):
        asked(server, path)
        time.sleep(0.02)
    took_s, busy_s = time.perf_counter() - began, cpu_s(pid) - before
    before = cpu_s(pid)
    time.sleep(took_s)
    return max(0.0, busy_s - (cpu_s(pid) - before)) / count


def measure(quick: bool) -> list[Figure]:
    count, chunks = sized(quick, 200, 40, 3), sized(quick, 700, 150, 30)
    with scratch() as place, corral(place / "main", models_yaml(engine(place))) as server:
        used(server, place)
        for _ in range(3):  # engines are asked beside the first
            _, size = asked(server, "/metrics")
            time.sleep(1.2)
        scrape_s, live_s = cost_s(server, "/metrics", count), cost_s(server, "/control/live", count)
        health_s = cost_s(server, "/health", count)
        scrapes, healths, alone, watched = beside_streams(server, chunks)
        quiet = [asked(server, "/metrics")[0] for _ in range(count)]
    gaps_ms = [percentile(gaps, 99) * 1000 for gaps in (alone, watched)]
    return [
        Figure("scrape_p50_ms", percentile(scrapes, 50) * 1000, "≤ 20", f"{len(scrapes)} beside {STREAMS} streams"),
        Figure("scrape_p99_ms", percentile(scrapes, 99) * 1000, "≤ 20"),
        Figure("health_p50_ms", percentile(healths, 50) * 1000, "", "beside the same streams"),
        Figure("health_p99_ms", percentile(healths, 99) * 1000),
        Figure("scrape_quiet_p50_ms", percentile(quiet, 50) * 1000, "", "without streams"),
        Figure("cpu_percent_at_5s", scrape_s / 5 * 100, "≤ 1", f"{scrape_s * 1000:.1f} ms for each scrape"),
        Figure("live_cpu_percent_at_1s", live_s * 100, "≤ 0.5", f"`/health`: {health_s * 100:.2f}"),
        Figure("added_gap_p99_ms", gaps_ms[1] - gaps_ms[0], "≤ 2", f"{gaps_ms[0]:.1f} without scrapes"),
        Figure("text_kb", size / 1000, "", "compressed"),
    ]


if __name__ == "__main__":
    sys.exit(main("scrape", WHAT, measure))
