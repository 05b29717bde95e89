"""What the gateway itself costs: the same small requests and streams straight to a fixed engine and through Corral,
through a relay that does nothing else, and through other gateways where they are installed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from bench import load, peers
from bench.frame import ROOT, Figure, main, median, percentile, sized
from bench.serving import START_S, Corral, corral, free_port, scratch
from bench.wire import Address, Refused, connect
from corral.gateway.http import room

WHAT = (
    "What Corral adds to an engine that answers at once with fixed bytes. Added time: one request at a time on a kept "
    "connection, TCP to Corral against the engine's own unix socket, in turns; for a stream to its first event. CPU: "
    "the whole server process, by request with 16 connections that never pause, and by event of 256 streams with one "
    "event every 44 ms each (5,800 a second in all). The ratio is that of the events received in the same time by the "
    "256 streams; `added_gap_p99_ms` is what is added to the time between two events. `relay_us_…` is the same for a "
    "relay on uvloop that passes bytes on unread, in turns with Corral: less is not to be had on that machine, at that "
    "moment. `idle_streams_mb_1000` is the memory that the server has more with 1,000 streams open, each of which has "
    "had one event and waits for the next. The other gateways, over TCP, stand before the same fixed engine, "
    "llama-server's router before its own child, each compared with what it stands before."
)
MODEL = "fixed"
STREAMS, PACE_MS = 256, 44
IDLE, IDLE_MS = 1000, 120_000


def request_bytes(*, model: str = MODEL, **more: object) -> bytes:
    """A small chat as an OpenAI client sends it."""
    asked = {"model": model, "messages": [{"role": "user", "content": "What is Corral?"}], "temperature": 0, **more}
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


def models_yaml(program: Path, streams: int = STREAMS) -> str:
    return (
        f"max_queue: 1000\nmodels:\n  - name: {MODEL}\n    source: builtin:demo\n    executable: {program}\n"
        f"    idle_timeout: never\n    parallel: {streams}\n    context: 64\n"
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


@contextmanager
def bare_relay(engine: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    """A process that passes bytes on to `engine`: its id and address."""
    address = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "bench.bare_relay", str(address[1]), str(engine)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                connect(address).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield process.pid, address
    finally:
        process.terminate()
        process.wait()


def idle_streams_mb() -> float:
    """What the server has more while many streams wait for their next event, in MB."""
    room.most_connections()  # ours too: what we start inherits the bound on open files
    request = request_bytes(max_tokens=2, stream=True, pace_ms=IDLE_MS)
    with scratch() as place, corral(place / "idle", models_yaml(engine(place), IDLE)) as server:
        warm(server)
        load.run(server.address, request_bytes(max_tokens=2, stream=True), 16, 20)
        before, links = server.rss_mb, []
        try:
            for _ in range(IDLE):
                links.append(link := connect(server.address))
                link.sendall(request)
                seen = b""
                while b"data: {" not in seen:
                    if not (piece := link.recv(65536)):
                        raise Refused(seen[:500].decode(errors="replace"))
                    seen += piece
            return server.rss_mb - before
        finally:
            for link in links:
                link.close()


def under_load(corral: int, relay: int, direct: Side, bare: Side, through: Side, quick: bool) -> list[Figure]:
    unary = request_bytes(max_tokens=1)
    chunks = sized(quick, 150, 60, 4)
    stream = request_bytes(max_tokens=chunks, stream=True, pace_ms=PACE_MS)
    sides = ((direct, 0), (bare, relay), (through, corral))
    by_request: dict[int, list[float]] = {relay: [], corral: []}
    by_chunk: dict[int, list[float]] = {relay: [], corral: []}
    for _ in range(sized(quick, 15, 3)):
        for side, pid in sides:
            before = cpu_s(pid) if pid else 0.0
            done = load.run(side.address, unary, 16, sized(quick, 150, 100, 3))
            side.request_s.append(done.took_s / done.answers)
            if pid:
                by_request[pid].append((cpu_s(pid) - before) / done.answers * 1e6)
    for _ in range(sized(quick, 3, 2)):
        for side, pid in sides:
            before = cpu_s(pid) if pid else 0.0
            done = load.run(side.address, stream, STREAMS, 1)
            side.rates.append(done.events / done.took_s)
            side.gaps_s += done.gaps_s
            if pid:
                by_chunk[pid].append((cpu_s(pid) - before) / done.events * 1e6)
    gap_ms = [percentile(side.gaps_s, 99) * 1000 for side in (direct, through, bare)]
    return [
        Figure("cpu_us_per_request", median(by_request[corral]), "≤ 40"),
        Figure("relay_us_per_request", median(by_request[relay]), "", "a bare relay, in turns"),
        Figure("cpu_us_per_chunk", median(by_chunk[corral]), "≤ 14", "requests and connections included"),
        Figure("relay_us_per_chunk", median(by_chunk[relay]), "", "a bare relay, in turns"),
        Figure("throughput_ratio_256", median(through.rates) / median(direct.rates), "≥ 0.99"),
        Figure("relay_throughput_ratio_256", median(bare.rates) / median(direct.rates), "", "a bare relay, in turns"),
        Figure("added_gap_p99_ms", gap_ms[1] - gap_ms[0], "≤ 2"),
        Figure("relay_gap_p99_ms", gap_ms[2] - gap_ms[0], "", "a bare relay, in turns"),
        Figure(
            "requests_per_s_16",
            1 / median(through.request_s),
            "",
            f"direct: {1 / median(direct.request_s):.0f}, a bare relay: {1 / median(bare.request_s):.0f}",
        ),
    ]


def measure(quick: bool) -> list[Figure]:
    rounds = sized(quick, 3000, 300, 5)
    with scratch() as place, corral(place / "main", models_yaml(engine(place))) as server:
        warm(server)
        address = server.endpoint(MODEL)
        with bare_relay(address) as (relay, relay_address):
            direct, through, bare = Side(address), Side(server.address), Side(relay_address)
            added([direct, through, bare], rounds)
            by_load = under_load(server.process.pid, relay, direct, bare, through, quick)
    unary_ms = [[percentile(side.unary_s, p) * 1000 for p in (50, 99)] for side in (direct, through, bare)]
    stream_ms = [percentile(side.stream_s, 50) * 1000 for side in (direct, through, bare)]
    return [
        Figure("added_unary_p50_ms", unary_ms[1][0] - unary_ms[0][0], "≤ 0.25", f"{rounds} rounds"),
        Figure("added_stream_p50_ms", stream_ms[1] - stream_ms[0], "≤ 0.4", "to the first event"),
        Figure("added_p99_ms", unary_ms[1][1] - unary_ms[0][1], "", "unary"),
        Figure("relay_added_unary_p50_ms", unary_ms[2][0] - unary_ms[0][0], "", "a bare relay, in turns"),
        Figure("relay_added_stream_p50_ms", stream_ms[2] - stream_ms[0], "", "a bare relay, in turns"),
        Figure("direct_unary_p50_ms", unary_ms[0][0]),
        *by_load,
        Figure("idle_streams_mb_1000", idle_streams_mb(), "≤ 60", "more than with none"),
        *peers.measure(lambda model: partial(request_bytes, model=model), quick),
    ]


if __name__ == "__main__":
    sys.exit(main("gateway", WHAT, measure))
