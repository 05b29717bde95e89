"""A real llama.cpp under the warden: it answers, it stops, and what it refuses is explained."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import corral.demo
from corral.config.paths import Paths
from corral.engines import embedded_host
from corral.engines.plan import Endpoint, LaunchPlan
from corral.runners.process import ProcessRunner
from corral.supervisor import logs, reasons
from support.engines import plan_of, until_told

DEMO_MODEL = Path(corral.demo.__path__[0]) / "corral-demo.gguf"


def real_plan(paths: Paths, model: Path, *flags: str) -> LaunchPlan:
    socket = paths.units_dir / "real.1.sock"
    argv = (sys.executable, str(embedded_host.__file__), "--model", str(model), "--host", str(socket), *flags)
    return replace(plan_of(*argv, model="real"), endpoint=Endpoint(socket=socket))


async def health(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return b" 200 " in status


async def test_real_engine_runs_and_stops(runner: ProcessRunner, paths: Paths) -> None:
    """The embedded llama.cpp becomes healthy with the environment it is given, holds memory, and ends on TERM."""
    plan = real_plan(paths, DEMO_MODEL, "--ctx-size", "256")
    running = await runner.start(plan, logs.prepare(paths, "real", 1))
    assert plan.endpoint.socket is not None
    socket = plan.endpoint.socket
    await until_told(lambda: health(socket), "the engine to be healthy")
    size = runner.memory_bytes(running)
    assert size is not None
    assert size > 10 << 20
    exit_ = await running.stop(10)
    assert exit_.asked
    assert exit_.code == 0 or exit_.signal == signal.SIGTERM


@pytest.mark.parametrize(
    ("content", "flags", "kind"),
    [
        (None, (), "file"),
        (b"no gguf at all", (), "file"),
        (b"GGUF\x03\x00\x00\x00", (), "file"),
        (b"GGUF\x03\x00\x00\x00", ("--no-such-flag",), "flag"),
    ],
)
async def test_what_a_real_engine_refuses_is_explained(
    runner: ProcessRunner, paths: Paths, short_tmp: Path, content: bytes | None, flags: tuple[str, ...], kind: str
) -> None:
    """A missing, foreign or truncated model file and a wrong flag end a real engine with a reason of the right kind."""
    model = short_tmp / "bad.gguf"
    if content is not None:
        await asyncio.to_thread(model.write_bytes, content)
    log = logs.prepare(paths, "real", 1)
    running = await runner.start(real_plan(paths, model, *flags), log)
    exit_ = await running.wait()
    reason = reasons.explain(exit_, logs.tail(log, 20), "real")
    assert reason.kind == kind, reason
