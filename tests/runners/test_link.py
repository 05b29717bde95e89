"""The daemon's link to the warden: finding, starting, losing it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from corral.config.paths import Paths
from corral.errors import ConfigError
from corral.runners import link as links
from corral.runners.launch import warden_log
from corral.runners.link import WardenLink, WardenLost, WardenRefused
from support.engines import lives, until


async def test_connect_starts_a_detached_warden(link: WardenLink, paths: Paths) -> None:
    """The first connect starts a warden that is no child of ours, in a session of its own, and says so in its log."""
    warden = psutil.Process(link.pid)
    assert warden.ppid() != os.getpid()
    assert os.getsid(link.pid) != os.getsid(0)
    assert psutil.Process().children() == []
    assert f"up as process {link.pid}" in warden_log(paths).read_text()


async def test_one_that_took_long_to_start_is_reached(link: WardenLink, paths: Paths) -> None:
    """When starting a warden has used up all of the time there was, the one that listens now is still asked."""
    await link.shutdown(0.0)
    async with await WardenLink.connect(paths, idle_s=0.2, within_s=0.0) as other:
        assert other.pid != link.pid and await other.list() == []


async def test_connect_finds_the_one_that_runs(link: WardenLink, paths: Paths) -> None:
    """A later connect reaches the same warden, whoever asks."""
    async with await WardenLink.connect(paths, role="observer") as other:
        assert other.pid == link.pid


async def test_many_connects_share_one_warden(link: WardenLink, paths: Paths) -> None:
    """Any number of connects at once, with none running, end up with one warden."""
    await link.shutdown(0.0)
    links = await asyncio.gather(*(WardenLink.connect(paths, idle_s=0.2) for _ in range(4)))
    assert len({each.pid for each in links}) == 1
    for each in links:
        await each.aclose()


async def test_connect_waits_for_one_that_is_ending(link: WardenLink, paths: Paths) -> None:
    """A warden that is shutting down takes nobody in; connect starts the next one as soon as it is gone."""
    log = paths.logs_dir / "a.log"
    script = "trap '' TERM; echo up; while :; do sleep 60; done"
    await link.spawn("a.1", ["/bin/sh", "-c", script], env={}, cwd=Path("/"), log=log)
    await until(lambda: "up" in log.read_text(), "the trap to be set")
    ending = asyncio.create_task(link.shutdown(0.3))
    async with await WardenLink.connect(paths, idle_s=0.2) as other:
        assert other.pid != link.pid
        assert [each.state for each in await other.list()] == ["exited"]
    await ending


async def test_dead_wardens_socket_is_no_obstacle(link: WardenLink, paths: Paths) -> None:
    """After a kill -9, its socket still lying there, connect starts another warden."""
    os.kill(link.pid, signal.SIGKILL)
    await link.lost()
    assert paths.warden_socket.exists()
    async with await WardenLink.connect(paths, idle_s=0.2) as other:
        assert other.pid != link.pid


async def test_unreachable_place_is_one_clear_error(short_tmp: Path) -> None:
    """A socket path that is too long ends in a configuration error with a hint, not in endless tries."""
    long = short_tmp / ("x" * 120)
    paths = Paths(config_dir=long, state_dir=short_tmp / "s", cache_dir=long, runtime_dir=long, data_dir=long)
    paths.make()
    with pytest.raises(ConfigError) as caught:
        await WardenLink.connect(paths)
    assert "103 bytes" in caught.value.hint


async def test_refusal_has_the_reason(link: WardenLink, paths: Paths) -> None:
    """What the warden refuses is an error with its code, words and a hint."""
    with pytest.raises(WardenRefused) as caught:
        await link.spawn("a.1", ["/nowhere"], env={}, cwd=Path("/"), log=paths.logs_dir / "a.log")
    assert caught.value.details["reason"] == "ENOENT"
    assert "/nowhere" in caught.value.message
    assert caught.value.hint


async def test_loss_is_noticed_by_everyone(link: WardenLink, paths: Paths) -> None:
    """When the warden dies, `lost` returns, waiters for exits get one that nobody saw, and requests fail."""
    log = paths.logs_dir / "a.log"
    pid, _ = await link.spawn("a.1", ["/bin/sleep", "60"], env={}, cwd=Path("/"), log=log)
    waiting = [asyncio.create_task(link.lost()) for _ in range(2)]
    os.kill(link.pid, signal.SIGKILL)
    assert len({await each for each in waiting}) == 1
    exit_ = await link.exit_of("a.1")
    assert (exit_.code, exit_.signal) == (None, None)
    assert link.is_lost
    with pytest.raises(WardenLost):
        await link.list()
    if sys.platform.startswith("linux"):
        await until(lambda: not lives(pid), "the engine to end with its warden")


async def test_shutdown_of_a_hanging_warden_returns(link: WardenLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warden that does not answer keeps nobody from ending: `shutdown` gives up."""
    monkeypatch.setattr(links, "ANSWER_WITHIN_S", 0.1)
    os.kill(link.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            await link.shutdown(0.1)
    finally:
        os.kill(link.pid, signal.SIGCONT)
    await link.lost()  # it had been told


async def test_cancelled_wait_harms_nobody(link: WardenLink, paths: Paths) -> None:
    """A request that is cancelled while its answer is on the way does not confuse the next one."""
    asking = asyncio.create_task(link.list())
    await asyncio.sleep(0)
    asking.cancel()
    assert await link.list() == []
    with pytest.raises(asyncio.CancelledError):
        await asking
