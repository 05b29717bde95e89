"""What is measured: a `corral serve` with directories of its own, and an engine started bare from the same plan."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.wire import Address, healthy
from corral.engines.plan import LaunchPlan

START_S = 60.0
STOP_S = 20.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@dataclass
class Corral:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    env: dict[str, str]
    accept_s: float  # from spawning it to the first accepted connection
    answer_s: float  # and to the first answer: it listens before it has loaded everything

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    @property
    def peak_rss_mb(self) -> float:
        """The most memory it has had so far; where the system does not say, what it has now."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return self.rss_mb
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(*self.address, timeout=START_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/control/{path}", data, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
            return json.loads(text)
        finally:
            connection.close()

    def stop(self, model: str) -> None:
        self.control("POST", "stop", {"model": model, "wait": True})

    def endpoint(self, model: str) -> Path:
        """The unix socket of the model's engine."""
        for unit in self.control("GET", "units"):
            if unit["model"] == model and unit["state"] == "ready":
                return Path(str(unit["endpoint"]).removeprefix("unix:"))
        raise RuntimeError(f"{model} is not ready")

    def cli_s(self, *words: str) -> float:
        """How long `corral WORDS…` takes as a whole process."""
        began = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).parent / "corral", *words], env=self.env, check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - began


@contextmanager
def corral(place: Path, models: str) -> Iterator[Corral]:
    """`corral serve` with `models` (the text of a models.yaml), once it accepts connections."""
    place.mkdir(exist_ok=True)
    config = place / "models.yaml"
    config.write_text(models)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    env |= {f"CORRAL_{name.upper()}_DIR": str(place / name) for name in ("config", "state", "cache", "runtime", "data")}
    port = free_port()
    command: list[str | Path] = [Path(sys.executable).parent / "corral", "serve", "--quiet", "--config", config]
    command += ["--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
    with (place / "serve.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while not _accepts(("127.0.0.1", port)):
            if process.poll() is not None or time.perf_counter() - began > START_S:
                raise RuntimeError(f"corral serve did not start: {(place / 'serve.log').read_text()}")
            time.sleep(0.001)
        accept_s = time.perf_counter() - began
        if not healthy(("127.0.0.1", port)):
            raise RuntimeError(f"corral serve does not answer: {(place / 'serve.log').read_text()}")
        yield Corral(process, port, env, accept_s, time.perf_counter() - began)
    finally:
        end(process)
        for warden in [p for p in psutil.process_iter(["cmdline"]) if _names(p, place)]:
            warden.terminate()


@contextmanager
def bare(plan: LaunchPlan, log: Path) -> Iterator[Address]:
    """The plan's process, spawned directly, once /health answers; asked every millisecond."""
    assert plan.endpoint.socket is not None
    address = plan.endpoint.socket
    address.unlink(missing_ok=True)
    env = os.environ | dict(plan.env)
    with log.open("ab") as out:
        # A session of its own, as Corral's engines have: Linux shares processors out by session.
        process = subprocess.Popen(
            plan.argv, env=env, cwd=plan.cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.perf_counter() + START_S
        while not healthy(address):
            if process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"the bare engine did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.001)
        yield address
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _names(process: psutil.Process, place: Path) -> bool:
    return any(str(place) in part for part in process.info["cmdline"] or ())
