"""Other gateways in front of the same fixed engine, where they are installed: what each adds to a small request.

`make peers` installs `vllm-router` and LiteLLM into an environment of their own; llama-server is the built one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.frame import ROOT, Figure, percentile, sized
from bench.serving import end, free_port
from bench.wire import Address, Refused, connect
from corral.config.paths import find_paths
from corral.demo.where import demo_model

START_S = 180.0

Request = Callable[..., bytes]
"""A chat request with these members, for one model."""


@dataclass
class Side:
    """A peer, or what it stands in front of."""

    address: Address
    pid: int = 0
    alone: bool = False  # its children are the engines
    unary_s: list[float] = field(default_factory=list)
    stream_s: list[float] = field(default_factory=list)
    cpu_us: float = 0.0


def place() -> Path:
    """The environment of the peers that come from the package index."""
    return find_paths().cache_dir / "peers" / "py"


def measure(request: Callable[[str], Request], quick: bool) -> list[Figure]:
    """Each peer's figures; `request` makes those of a model."""
    found: list[Figure] = []
    for name, opened in (("llama_router", _llama_router), ("vllm_router", _vllm_router), ("litellm", _litellm)):
        with ExitStack() as stack:
            try:
                direct, peer, model = stack.enter_context(opened())
            except (FileNotFoundError, RuntimeError) as exc:
                print(f"without {name}: {exc}", file=sys.stderr)
                continue
            found += _figures(name, direct, peer, request(model), sized(quick, 1000, 100, 3))
    return found


def _figures(name: str, direct: Side, peer: Side, request: Request, rounds: int) -> list[Figure]:
    unary, stream = request(max_tokens=1), request(max_tokens=8, stream=True)
    links = [connect(side.address) for side in (direct, peer)]
    try:
        for number in range(rounds + 20):
            for turn in range(2):
                at = (number + turn) % 2
                side = (direct, peer)[at]
                unary_s, links[at] = _one(links[at], side.address, unary)
                stream_s, links[at] = _one(links[at], side.address, stream)
                if number >= 20:
                    side.unary_s.append(unary_s)
                    side.stream_s.append(stream_s)
        before = _cpu_s(peer)
        for _ in range(rounds):
            _, links[1] = _one(links[1], peer.address, unary)
        peer.cpu_us = (_cpu_s(peer) - before) / rounds * 1e6
    finally:
        for link in links:
            link.close()

    def added_ms(which: str, percent: int) -> float:
        return 1000 * (percentile(getattr(peer, which), percent) - percentile(getattr(direct, which), percent))

    return [
        Figure(f"{name}_added_unary_p50_ms", added_ms("unary_s", 50), "", f"{rounds} rounds"),
        Figure(f"{name}_added_stream_p50_ms", added_ms("stream_s", 50), "", "to the first event"),
        Figure(f"{name}_added_p99_ms", added_ms("unary_s", 99), "", "unary"),
        Figure(f"{name}_cpu_us_per_request", peer.cpu_us, "", "one at a time"),
    ]


def _one(link: socket.socket, address: Address, request: bytes) -> tuple[float, socket.socket]:
    """Seconds to the answer's body, or its first event; and the connection to go on with."""
    for last in (False, True):
        began = time.perf_counter()
        try:
            link.sendall(request)
            at = _read(link)
        except (OSError, EOFError):
            if last:
                raise
            link.close()
            link = connect(address)  # a kept connection that was closed
            continue
        return at - began, link
    raise AssertionError


def _read(link: socket.socket) -> float:
    """When the body's first bytes were there. Raises EOFError, Refused."""
    seen, at, whole = b"", 0.0, -1
    while True:
        piece = link.recv(65536)
        if not piece:
            raise EOFError
        seen += piece
        end = seen.find(b"\r\n\r\n") + 4
        if end < 4:
            continue
        if not seen.startswith(b"HTTP/1.1 200"):
            raise Refused(seen[:500].decode(errors="replace"))
        if not at and len(seen) > end:
            at = time.perf_counter()
        if whole < 0:
            fields = seen[:end].lower()
            length = fields.find(b"\r\ncontent-length:")
            whole = end + int(fields[length + 17 :].split(b"\r\n")[0]) if length >= 0 else 0
        if (whole and len(seen) >= whole) or (not whole and seen.endswith(b"\r\n0\r\n\r\n")):
            return at


def _cpu_s(side: Side) -> float:
    process = psutil.Process(side.pid)
    children = [] if side.alone else process.children(recursive=True)
    times = [each.cpu_times() for each in (process, *children) if each.is_running()]
    return float(sum(each.user + each.system for each in times))


@contextmanager
def _running(
    command: list[str], ready: Address, path: str = "/health", **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            deadline = time.monotonic() + START_S
            while not _answers(ready, path):
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"it did not start: {said.read()[-600:].decode(errors='replace')}")
                time.sleep(0.1)
            yield process
        finally:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            end(process)
            for child in children:
                if child.is_running():
                    child.kill()


def _answers(address: Address, path: str) -> bool:
    try:
        with connect(address) as link:
            link.settimeout(5)
            link.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            return link.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@contextmanager
def _fixed() -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "bench.fixed_engine", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, ("127.0.0.1", port)):
        yield port


def _installed(name: str) -> str:
    program = place() / "bin" / name
    if not program.exists():
        raise FileNotFoundError("`make peers` installs it")
    return str(program)


@contextmanager
def _vllm_router() -> Iterator[tuple[Side, Side, str]]:
    program = _installed("vllm-router")
    with _fixed() as engine:
        address, metrics = ("127.0.0.1", free_port()), free_port()
        command = [program, "--worker-urls", f"http://127.0.0.1:{engine}", "--host", address[0]]
        command += ["--port", str(address[1]), "--prometheus-port", str(metrics), "--log-level", "error"]
        with _running(command, address) as process:
            yield Side(("127.0.0.1", engine)), Side(address, process.pid), "fixed"


@contextmanager
def _litellm() -> Iterator[tuple[Side, Side, str]]:
    program = _installed("litellm")
    with _fixed() as engine, ExitStack() as stack:
        config = place().parent / "litellm.yaml"
        config.write_text(
            "model_list:\n  - model_name: fixed\n    litellm_params:\n      model: openai/fixed\n"
            f"      api_base: http://127.0.0.1:{engine}/v1\n      api_key: none\n"
        )
        stack.callback(config.unlink)
        address = ("127.0.0.1", free_port())
        command = [program, "--config", str(config), "--host", address[0], "--port", str(address[1])]
        off = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR"}
        off["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # the others ask for no key either
        with _running([*command, "--telemetry", "False"], address, "/health/liveliness", **off) as process:
            yield Side(("127.0.0.1", engine)), Side(address, process.pid), "fixed"


@contextmanager
def _llama_router() -> Iterator[tuple[Side, Side, str]]:
    """Its engine is a child of its own: the demo model, asked directly for comparison."""
    built = sorted((find_paths().cache_dir / "engines" / "llama.cpp").glob("*/bin/llama-server"))
    if not built:
        raise FileNotFoundError("`make engines` builds llama-server")
    address = ("127.0.0.1", free_port())
    model = demo_model()
    command = [str(built[-1]), "--models-dir", str(model.parent), "--host", address[0], "--port", str(address[1])]
    with _running([*command, "-c", "512"], address) as process:
        name = model.stem
        link = connect(address)
        body = b'{"model":"%b","messages":[{"role":"user","content":"hi"}],"max_tokens":1}' % name.encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        link.sendall(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        _read(link)  # it is loaded now
        link.close()
        (child,) = psutil.Process(process.pid).children()
        words = child.cmdline()
        port = int(words[words.index("--port") + 1])
        yield Side(("127.0.0.1", port)), Side(address, process.pid, alone=True), name
