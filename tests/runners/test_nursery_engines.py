"""Real embedded engines of the nursery beside those that are spawned plainly, through the runner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines import executables
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint, LaunchPlan
from corral.runners import nursery
from corral.runners.process import ProcessRunner, ProcessRunning
from corral.supervisor import logs
from corral.supervisor.probe import check
from support import ggufs
from support.engines import lives, until, until_told
from support.http import unix_request

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux hands orphans to the warden")

WORDS = ["the", "gate", "is", "open"]


@pytest.fixture
def model(short_tmp: Path) -> Path:
    return ggufs.write_chain(short_tmp / "chain.gguf", WORDS)


def plan_of(paths: Paths, model: Path, generation: int, **more: object) -> LaunchPlan:
    settings = ModelSettings(name="real", source=model, executable="embedded", context=256, **more)  # type: ignore[arg-type]
    socket = paths.units_dir / f"real.{generation}.sock"
    return LlamaCpp().plan(Start(settings, generation=generation, endpoint=Endpoint(socket=socket)))


@asynccontextmanager
async def keeping(runner: ProcessRunner) -> AsyncIterator[list[str]]:
    """A nursery for the block, with what is said about it."""
    if why := await asyncio.to_thread(nursery.why_not):
        pytest.skip(why)
    said: list[str] = []
    runner.expect_embedded()
    task = asyncio.create_task(runner.keep_nursery(said.append))
    await until_told(lambda: ready(runner), "the nursery to be ready")
    yield said
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ready(runner: ProcessRunner) -> bool:
    return bool((await runner.link.nursery_state())["state"] == "ready")


async def started(runner: ProcessRunner, paths: Paths, plan: LaunchPlan) -> ProcessRunning:
    running = await runner.start(plan, logs.prepare(paths, "real", plan.generation))
    assert isinstance(running, ProcessRunning)

    async def healthy() -> bool:
        return await check(plan.endpoint, plan.probe) == 200

    await until_told(healthy, "the engine to answer")
    return running


def seen(pid: int) -> dict[str, object]:
    """What the system shows of an engine that does not depend on when it was started."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    descriptors = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return {
        "status": {name: status[name] for name in ("Name", "Umask", "PPid", "Threads", "SigBlk", "SigIgn", "SigCgt")},
        "cmdline": Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"real.2", b"real.1").split(b"\0"),
        "environ": sorted(x for x in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if b"MARK" not in x),
        "kinds": sorted(each.partition(":")[0].replace("/2.log", "/1.log") for each in descriptors),
        "cwd": str(Path(f"/proc/{pid}/cwd").readlink()),
        "limits": Path(f"/proc/{pid}/limits").read_text(),
        "alone": os.getsid(pid) == os.getpgid(pid) == pid,
    }


def sockets(pid: int) -> int:
    return sum(os.readlink(each).startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())  # noqa: PTH115


async def test_born_and_spawned_are_alike(runner: ProcessRunner, paths: Paths, model: Path) -> None:
    """An engine of the nursery answers the same, looks the same to the system, takes as much memory, and ends the same
    as one that is spawned plainly."""
    found, sizes = [], list[int]()
    first = await started(runner, paths, plan_of(paths, model, 1))
    async with keeping(runner) as said:
        second = await started(runner, paths, plan_of(paths, model, 2))
        assert (first.born, second.born) == ("exec", "nursery")
        for generation, running in ((1, first), (2, second)):
            assert running.pid is not None
            log = logs.log_file(paths, "real", generation)
            await until(lambda log=log: "corral: ready" in log.read_text(), "the handler of TERM")  # type: ignore[misc]
            body = {"messages": [{"role": "user", "content": "is it?"}], "temperature": 0}
            socket = paths.units_dir / f"real.{generation}.sock"
            status, _, answer = await asyncio.to_thread(unix_request, socket, "POST", "/v1/chat/completions", body)
            said_by_it = json.loads(answer)["choices"][0]["message"]["content"]
            size = runner.memory_bytes(running)
            assert size is not None
            exit_ = await running.stop(10)
            found.append((status, said_by_it, exit_.code, exit_.signal, exit_.asked, socket.exists()))
            sizes.append(size)
        assert said == []
    assert found[0] == found[1] == (200, "the gate is open", 0, None, True, False)
    # A fork has fewer pages of the library in its own tables, and what the nursery did not share is its own.
    assert 0.5 < sizes[1] / sizes[0] < 1.2


async def test_the_system_sees_the_same(runner: ProcessRunner, paths: Paths, model: Path) -> None:
    """Name, arguments, environment, descriptors, signals, threads and limits are those of a plain spawn."""
    looks = []
    first = await started(runner, paths, plan_of(paths, model, 1))
    async with keeping(runner):
        second = await started(runner, paths, plan_of(paths, model, 2))
        for generation, running in ((1, first), (2, second)):
            assert running.pid is not None
            log = logs.log_file(paths, "real", generation)
            await until(lambda log=log: "corral: ready" in log.read_text(), "the handler of TERM")  # type: ignore[misc]
            await until(lambda pid=running.pid: sockets(pid) == 1, "the probe's connection to be closed")  # type: ignore[misc]
            looks.append(await asyncio.to_thread(seen, running.pid))
            await running.stop(10)
    assert looks[0] == looks[1]


async def test_what_is_refused(runner: ProcessRunner, paths: Paths, short_tmp: Path) -> None:
    """A file that is no model ends both kinds of engine with the same code and last line."""
    bad = short_tmp / "bad.gguf"
    bad.write_bytes(b"GGUF\x03\x00\x00\x00")
    told = []
    async with keeping(runner):
        for generation, env in ((1, {}), (2, {"ANOTHER": "environment"})):
            plan = replace(plan_of(paths, ggufs.write_chain(short_tmp / "good.gguf", WORDS), generation), env=env)
            argv = [word.replace("good.gguf", "bad.gguf") for word in plan.argv]
            log = logs.prepare(paths, "real", generation)
            running = await runner.start(replace(plan, argv=tuple(argv)), log)
            assert isinstance(running, ProcessRunning)
            exit_ = await running.wait()
            told.append((running.born, exit_.code, logs.tail(log, 1)))
    assert [each[0] for each in told] == ["nursery", "exec"]
    assert told[0][1:] == told[1][1:]


async def test_adopted_like_any_other(runner: ProcessRunner, paths: Paths, model: Path) -> None:
    """A later daemon finds an engine of the nursery with its plan, as what `deploy` would print."""
    plan = plan_of(paths, model, 1)
    async with keeping(runner):
        running = await started(runner, paths, plan)
        (survivor,) = await runner.survivors()
        assert (survivor.plan, survivor.running.pid) == (plan, running.pid)
        assert (await running.stop(10)).asked


async def test_after_a_lost_warden(runner: ProcessRunner, paths: Paths, model: Path) -> None:
    """The warden that replaces a killed one is asked for a nursery too; nothing of the first is left."""
    async with keeping(runner):
        running = await started(runner, paths, plan_of(paths, model, 1))
        state = await runner.link.nursery_state()
        os.kill(runner.link.pid, signal.SIGKILL)
        await running.wait()
        assert running.pid is not None
        await until(lambda: not lives(running.pid or 0) and not lives(state["pid"]), "the first warden's to end")
        second = await started(runner, paths, plan_of(paths, model, 2))
        await until_told(lambda: ready(runner), "another nursery")
        third = await started(runner, paths, plan_of(paths, model, 3))
        assert (second.born, third.born) == ("exec", "nursery")
        await asyncio.gather(second.stop(10), third.stop(10))


async def test_no_nursery_with_a_gpu(monkeypatch: pytest.MonkeyPatch, runner: ProcessRunner) -> None:
    """Where the embedded engine reports a GPU there is no nursery, and that is said."""
    monkeypatch.setattr(executables, "asked", lambda argv, env=None: "  CUDA0: A card\n")
    monkeypatch.setattr(executables, "_memory", {})
    said: list[str] = []
    runner.expect_embedded()
    await runner.keep_nursery(said.append)
    assert "GPU (CUDA0)" in said[0]
    assert (await runner.link.nursery_state())["state"] == "none"
