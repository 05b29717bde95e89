"""A real Prometheus for tests, and promtool: what `make prometheus` unpacks, or the programs on PATH."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.rpc import free_port
from support.server import Server, until


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where there is none."""
    folder = os.environ.get("CORRAL_TEST_PROMETHEUS")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: `make prometheus` unpacks it")
    return found


def promtool(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *words], capture_output=True, text=True, timeout=120, check=False, **more
    )


@dataclass(frozen=True)
class Prometheus:
    """One that runs, by its address."""

    url: str

    def get(self, path: str, **query: str | float) -> Any:
        """The `data` of an answer of its API. Raises AssertionError with its words when it refuses."""
        target = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(target, timeout=30) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{query}: {error.read().decode()}") from None

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series that `expr` has, each with `metric` and `value`."""
        found = self.get("query", query=expr, **({} if at is None else {"time": at}))
        return [] if found["resultType"] == "scalar" else list(found["result"])

    def between(self, expr: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The same over a time: each with `metric` and `values`."""
        return list(self.get("query_range", query=expr, start=start, end=end, step=step_s)["result"])

    def alerts(self) -> dict[str, set[str]]:
        """The states that each alert has just now, by its name."""
        found: dict[str, set[str]] = {}
        for each in self.get("alerts")["alerts"]:
            found.setdefault(each["labels"]["alertname"], set()).add(each["state"])
        return found

    def targets(self) -> list[dict[str, Any]]:
        return list(self.get("targets")["activeTargets"])


@contextmanager
def running(config: Path, data: Path) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, on a port of its own on loopback, until the block is left."""
    port = free_port()
    data.mkdir()
    log = data.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}", "--log.level=warn",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    made = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until(lambda: process.poll() is not None or _ready(made), "Prometheus to be ready", 60)
        assert process.poll() is None, log.read_text()
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(made: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{made.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        time.sleep(0.05)
        return False


def deploy(server: Server, target: str, *words: str) -> dict[str, Any]:
    """What `corral deploy` says it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "corral", "--json", "deploy", target, *words], env=server.environment,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def has_data(series: Sequence[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(each["value"][1])) for each in series)


def is_above_zero(series: Sequence[dict[str, Any]]) -> bool:
    """Whether any of them shows that something happened: a zero may be all that an expression can ever give."""
    return any(float(each["value"][1]) > 0 for each in series)  # NaN is not
