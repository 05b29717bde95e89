"""What the gateway itself costs: the same small requests and streams straight to a fixed engine and through Corral."""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import load
from bench.frame import ROOT, Figure, main, median, percentile
from bench.serving import START_S, Corral, corral, scratch
from bench.wire import Address, Refused, connect

WHAT = (
    "What Corral adds to an engine that answers at once with fixed bytes. Added time: one request at a time on a kept "
    "connection, TCP to Corral against the engine's own unix socket, in turns; for a stream to its first event. CPU: "
    "the whole server process, by request with 16 connections that never pause, and by event of 256 streams with one "
    "event every 44 ms each (5,800 a second in all). The ratio is that of the events received in the same time by the "
    "256 streams; `added_gap_p99_ms` is what is added to the time between two events."
)
MODEL = "fixed"
STREAMS, PACE_MS = 256, 44


def request_bytes(**more: object) -> bytes:
    """A small chat as an OpenAI client sends it."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "What is Corral?"}], "temperature": 0, **more}
    payload = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8642\r\naccept-encoding: gzip, deflate\r\n"
        "connection: keep-alive\r\naccept: application/json\r\ncontent-type: application/json\r\n"
        f"user-agent: bench\r\nauthorization: Bearer none\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


@dataclass
class Side:
    """One of the two: where it is, and the times it took."""

    address: Address
    unary_s: list[float] = field(default_factory=list)
    stream_s: list[float] = field(default_factory=list)
    request_s: list[float] = field(default_factory=list)  # wall time by request under load
    rates: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)


def engine(place: Path) -> Path:
    """The fixed engine as one executable file."""
    program = place / "fixed-engine"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m bench.fixed_engine "$@"\n')
    program.chmod(0o755)
    return program


def models_yaml(program: Path) -> str:
    return (
        f"max_queue: 1000\nmodels:\n  - name: {MODEL}\n    source: builtin:demo\n    executable: {program}\n"
        f"    idle_timeout: never\n    parallel: {STREAMS}\n    context: 64\n"
    )


def warm(server: Corral) -> None:
    """Has the engine started, as soon as the server takes work."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.control("POST", "start", {"model": MODEL})
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def one(link: socket.socket, request: bytes, first: bytes, last: bytes) -> float:
    """Seconds from sending to the first piece that has `first` in it; reads on to `last`."""
    began = time.perf_counter()
    link.sendall(request)
    seen, at = b"", 0.0
    while not seen.endswith(last):
        piece = link.recv(65536)
        if not piece:
            raise Refused(seen[:500].decode(errors="replace"))
        seen += piece
        if not at and first in seen:
            at = time.perf_counter()
    return at - began


def added(sides: list[Side], rounds: int) -> None:
    """Turns of single requests."""
    unary, stream = request_bytes(max_tokens=1), request_bytes(max_tokens=8, stream=True)
    links = [connect(side.address) for side in sides]
    try:
        for number in range(rounds + 20):
            for turn in range(len(sides)):
                at = (number + turn) % len(sides)
                unary_s = one(links[at], unary, b'"usage"', b'"total_tokens":2}}')
                stream_s = one(links[at], stream, b"data: {", b"0\r\n\r\n")
                if number >= 20:
                    sides[at].unary_s.append(unary_s)
                    sides[at].stream_s.append(stream_s)
    finally:
        for link in links:
            link.close()


def cpu_s(pid: int) -> float:
    """Processor time of the whole process so far, to the microsecond where the system counts so finely."""
    tasks = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
    if tasks:
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def loaded(server: Corral, direct: Side, through: Side, quick: bool) -> list[Figure]:
    """CPU and throughput, direct and through Corral in turns."""
    unary = request_bytes(max_tokens=1)
    chunks = 60 if quick else 150
    stream = request_bytes(max_tokens=chunks, stream=True, pace_ms=PACE_MS)
    by_request, by_chunk = [], []
    for _ in range(3 if quick else 7):
        for side in (direct, through):
            before = cpu_s(server.process.pid)
            done = load.run(side.address, unary, 16, 100 if quick else 300)
            side.request_s.append(done.took_s / done.answers)
            if side is through:
                by_request.append((cpu_s(server.process.pid) - before) / done.answers * 1e6)
    for _ in range(2 if quick else 3):
        for side in (direct, through):
            before = cpu_s(server.process.pid)
            done = load.run(side.address, stream, STREAMS, 1)
            side.rates.append(done.events / done.took_s)
            side.gaps_s += done.gaps_s
            if side is through:
                by_chunk.append((cpu_s(server.process.pid) - before) / done.events * 1e6)
    gap_ms = [percentile(side.gaps_s, 99) * 1000 for side in (direct, through)]
    return [
        Figure("cpu_us_per_request", median(by_request), "≤ 40"),
        Figure("cpu_us_per_chunk", median(by_chunk), "≤ 14", "requests and connections included"),
        Figure("throughput_ratio_256", median(through.rates) / median(direct.rates), "≥ 0.99"),
        Figure("added_gap_p99_ms", gap_ms[1] - gap_ms[0], "≤ 2"),
        Figure("requests_per_s_16", 1 / median(through.request_s), "", "direct: %.0f" % (1 / median(direct.request_s))),
    ]


def measure(quick: bool) -> list[Figure]:
    rounds = 300 if quick else 3000
    with scratch() as place, corral(place / "main", models_yaml(engine(place))) as server:
        warm(server)
        direct, through = Side(server.endpoint(MODEL)), Side(server.address)
        added([direct, through], rounds)
        under_load = loaded(server, direct, through, quick)
    unary_ms = [[percentile(side.unary_s, p) * 1000 for p in (50, 99)] for side in (direct, through)]
    stream_ms = [percentile(side.stream_s, 50) * 1000 for side in (direct, through)]
    return [
        Figure("added_unary_p50_ms", unary_ms[1][0] - unary_ms[0][0], "≤ 0.25", f"{rounds} rounds"),
        Figure("added_stream_p50_ms", stream_ms[1] - stream_ms[0], "≤ 0.4", "to the first event"),
        Figure("added_p99_ms", unary_ms[1][1] - unary_ms[0][1], "", "unary"),
        Figure("direct_unary_p50_ms", unary_ms[0][0]),
        *under_load,
    ]


if __name__ == "__main__":
    sys.exit(main("gateway", WHAT, measure))
