"""The process runner: what the supervisor sees of engines."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from corral.config.paths import Paths
from corral.errors import EngineMissing, StartFailed
from corral.runners import memory
from corral.runners.environment import ALLOWED, ALWAYS, engine_environment
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from support.engines import fake_plan, lives, plan_of, said, until, until_told


@pytest.fixture
def log(paths: Paths) -> Path:
    return paths.logs_dir / "fake.log"


async def test_stop_returns_the_exit(runner: ProcessRunner, paths: Paths, log: Path) -> None:
    """A started engine answers on its socket; stop ends it and returns how, as does every wait."""
    socket = paths.units_dir / "a.1"
    running = await runner.start(fake_plan(socket), log)
    waiting = asyncio.create_task(running.wait())
    await said(log, "listening on .*")
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    exit_ = await running.stop(10)
    assert (exit_.signal, exit_.asked) == (signal.SIGTERM, True)
    assert await waiting == await running.wait() == await running.stop(10) == exit_


async def test_cancelling_one_waiter_leaves_the_others(runner: ProcessRunner, log: Path) -> None:
    """Of many that wait for an exit, one that is cancelled takes nothing from the others."""
    running = await runner.start(plan_of("/bin/sh", "-c", "sleep 0.2; exit 4"), log)
    first, second = (asyncio.create_task(running.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).code == 4
    assert first.cancelled()


async def test_ended_engine_is_forgotten(runner: ProcessRunner, link: WardenLink, log: Path, paths: Paths) -> None:
    """Once its exit is known here, the warden keeps no record of an engine."""
    running = await runner.start(plan_of("/bin/true"), log)
    assert (await running.wait()).code == 0
    assert await link.list() == []
    assert list(paths.warden_dir.glob("*.json")) == []


async def test_missing_executable(runner: ProcessRunner, log: Path) -> None:
    """An executable that is not there is an EngineMissing that names it and says what to do."""
    with pytest.raises(EngineMissing) as caught:
        await runner.start(plan_of("/nowhere/engine"), log)
    assert "/nowhere/engine" in caught.value.message
    assert caught.value.hint
    assert caught.value.details["reason"] == "ENOENT"


async def test_other_trouble_is_start_failed(runner: ProcessRunner, log: Path, short_tmp: Path) -> None:
    """What is not the executable's fault is a StartFailed."""
    with pytest.raises(StartFailed) as caught:
        await runner.start(replace(plan_of("/bin/true"), cwd=short_tmp / "gone"), log)
    assert "gone" in caught.value.message


async def test_cancelled_start_leaves_no_engine(runner: ProcessRunner, link: WardenLink, log: Path) -> None:
    """An engine whose start was cancelled half-way is ended."""
    starting = asyncio.create_task(runner.start(plan_of("/bin/sleep", "60"), log))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async def ended() -> bool:
        return all(each.state == "exited" for each in await link.list())

    await until_told(ended, "the engine to end")


async def test_survivors_are_adopted(runner: ProcessRunner, link: WardenLink, log: Path, paths: Paths) -> None:
    """A later daemon finds what runs, with its plan unchanged, and learns its exit; the log goes on meanwhile."""
    plan = fake_plan(paths.units_dir / "a.1", "--fork-child")
    running = await runner.start(plan, log)
    child = int(await said(log, r"child pid (\d+)"))
    await link.aclose()
    async with await WardenLink.connect(paths) as later:
        (survivor,) = await ProcessRunner(later, paths).survivors()
        assert (survivor.plan, survivor.log, survivor.running.pid) == (plan, log, running.pid)
        assert survivor.running.unit == "fake.1"
        exit_ = await survivor.running.stop(10)
        assert (exit_.signal, exit_.asked) == (signal.SIGTERM, True)
    await until(lambda: not lives(child), "the engine's child to end")


async def test_unreadable_survivors_are_ended(link: WardenLink, log: Path, paths: Paths) -> None:
    """An engine whose plan cannot be read is ended, not left to itself."""
    pid, _ = await link.spawn("a.1", ["/bin/sleep", "60"], env={}, cwd=Path("/"), log=log, plan={"format": 99})
    await link.aclose()
    async with await WardenLink.connect(paths) as later:
        assert await ProcessRunner(later, paths).survivors() == []
    assert not lives(pid)


async def test_departed_are_told_once(runner: ProcessRunner, link: WardenLink, log: Path, paths: Paths) -> None:
    """How an engine ended while no daemon was there is told to the next one, once."""
    plan = plan_of("/bin/sh", "-c", "sleep 0.1; exit 6")
    await runner.start(plan, log)
    await link.aclose()
    async with await WardenLink.connect(paths) as later:
        second = ProcessRunner(later, paths)
        departed = await until_told(second.departed, "the engine to end")
        assert [(each.unit, each.plan, each.exit.code) for each in departed] == [("fake.1", plan, 6)]
        assert await second.departed() == []


async def test_lost_warden_is_replaced(runner: ProcessRunner, link: WardenLink, log: Path) -> None:
    """When the warden is killed, its units count as exited and the next start brings up another warden."""
    before = await runner.start(plan_of("/bin/sleep", "60"), log)
    os.kill(link.pid, signal.SIGKILL)
    exit_ = await before.wait()
    assert (exit_.code, exit_.signal) == (None, None)
    assert await before.stop(1) == exit_
    after = await runner.start(plan_of("/bin/true", generation=2), log)
    assert (await after.wait()).code == 0
    assert runner.link.pid != link.pid


DAEMON = """
import asyncio, sys
from pathlib import Path
from corral.config.paths import find_paths
from corral.runners.link import WardenLink
async def main():
    link = await WardenLink.connect(find_paths(), idle_s=0.2)
    log = Path(sys.argv[1])
    for unit, leash in ("stays.1", "survive"), ("goes.1", "die-with-daemon"):
        pid, _ = await link.spawn(unit, ["/bin/sleep", "60"], env={}, cwd=Path("/"), log=log, leash=leash)
        print(unit, pid)
    print("ready", flush=True)
    await link.lost()
asyncio.run(main())
"""


async def test_killed_daemon(paths: Paths, link: WardenLink, log: Path, corral_env: dict[str, str]) -> None:
    """A daemon that is killed -9 takes its die-with-daemon engines along and no other."""
    await link.aclose()
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DAEMON, str(log), stdout=asyncio.subprocess.PIPE, env=corral_env, start_new_session=True
    )
    assert daemon.stdout is not None
    pids = {}
    while (line := (await daemon.stdout.readline()).decode().split()) != ["ready"]:
        pids[line[0]] = int(line[1])
    daemon.kill()
    assert await daemon.wait() == -signal.SIGKILL
    await until(lambda: not lives(pids["goes.1"]), "the leashed engine to end")
    assert lives(pids["stays.1"])


def size_of(log: Path) -> int:
    return log.stat().st_size


async def test_log_outlives_its_reader(runner: ProcessRunner, log: Path) -> None:
    """An engine goes on writing whatever becomes of those who read its log."""
    script = "while :; do echo line; sleep 0.01; done"
    running = await runner.start(plan_of("/bin/sh", "-c", script), log)
    await until(lambda: log.exists() and log.stat().st_size > 0, "the first line")
    follow = "import sys, time\nfile = open(sys.argv[1])\nwhile 1: file.read(); print(flush=True); time.sleep(0.01)"
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", follow, str(log), stdout=asyncio.subprocess.PIPE
    )
    assert reader.stdout is not None
    await reader.stdout.readline()
    reader.kill()
    await reader.wait()
    size = size_of(log)
    await until(lambda: size_of(log) > size + 10, "more lines")
    assert (await running.stop(10)).asked


async def test_memory_of_a_family(runner: ProcessRunner, log: Path) -> None:
    """Memory is what the engine and its descendants hold together, and nothing once it ended."""
    hold = "import os, sys\nkept = bytearray(os.urandom(1)) * (40 << 20)\nprint('held', flush=True)\n"
    family = hold + "os.fork()\nkept[::4096] = bytes(len(kept[::4096]))\nprint('both', flush=True)\nsys.stdin.read()\n"
    script = family + "import signal\nsignal.pause()\n"
    running = await runner.start(plan_of(sys.executable, "-S", "-c", script), log)
    await until(lambda: log.exists() and log.read_text().count("both") == 2, "both to hold their memory")
    size = runner.memory_bytes(running)
    assert size is not None
    assert 80 << 20 < size < 140 << 20
    await running.stop(10)
    assert runner.memory_bytes(running) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")
async def test_memory_by_ps_agrees(runner: ProcessRunner, log: Path) -> None:
    """Where there is no /proc, `ps` gives much the same figure."""
    if shutil.which("ps") is None:
        pytest.skip("no ps here")
    running = await runner.start(plan_of("/bin/sleep", "60"), log)
    assert running.pid is not None
    await until(lambda: psutil.Process(running.pid).name() == "sleep", "exec")
    by_ps = memory._by_ps(running.pid)
    assert by_ps is not None
    assert abs(by_ps - psutil.Process(running.pid).memory_info().rss) < 1 << 20
    await running.stop(10)


def test_environment_is_an_allow_list() -> None:
    """Of our environment only harmless names reach an engine, and the plan's own values win."""
    ours = {"PATH": "/bin", "HF_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/h", "CORRAL_KEY": "k"}
    given = {"PATH": "/bin", "HOME": "/other", "X": "1"}
    assert engine_environment({"HOME": "/other", "X": "1"}, ours) == {**ALWAYS, **given}
    assert not [name for name in ALLOWED if any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASS"))]


async def test_engine_sees_no_secret_of_ours(runner: ProcessRunner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the daemon's that is on no list does not reach an engine."""
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-test")
    running = await runner.start(replace(plan_of("/usr/bin/env"), env={"GIVEN": "1"}), log)
    await running.wait()
    text = await asyncio.to_thread(log.read_text)
    assert "GIVEN=1" in text
    assert "secret-of-the-test" not in text


def test_importing_the_runner_starts_nothing() -> None:
    """Importing the runner has no effect on the process: no child, no thread."""
    check = "import threading, corral.runners.process; print(threading.active_count())"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=True).stdout == b"1\n"
