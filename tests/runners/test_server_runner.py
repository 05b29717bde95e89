"""The runner of servers that run already: what it takes for gone, and what it waits for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from corral.engines.plan import LaunchPlan
from corral.runners.server import ServerRunner
from support.engines import fake_plan


def plan_at(socket: Path) -> LaunchPlan:
    return replace(fake_plan(socket), argv=(), runner="server")


async def listening(socket: Path) -> asyncio.Server:
    return await asyncio.start_unix_server(lambda reader, writer: writer.close(), socket)


async def test_a_stranger_is_not_waited_for_long(short_tmp: Path) -> None:
    """Where nobody ever listened it ends by itself, and says where."""
    runner = ServerRunner(stranger_s=0.3)
    running = await runner.start(plan_at(short_tmp / "s"), short_tmp / "log")
    exit_ = await asyncio.wait_for(running.wait(), 10)
    assert not exit_.asked and exit_.why == f"nobody listens at unix:{short_tmp / 's'} (No such file or directory)"
    assert "its log is where it was started" in (short_tmp / "log").read_text()


async def test_one_that_was_there_is_waited_for_when_it_is_gone(short_tmp: Path) -> None:
    """Its end is seen; the next start waits longer than for a stranger, for once, and sees it when it is back."""
    socket, runner = short_tmp / "s", ServerRunner(stranger_s=0.3)
    server = await listening(socket)
    running = await runner.start(plan_at(socket), short_tmp / "log")
    await asyncio.sleep(0.2)
    server.close()
    socket.unlink(missing_ok=True)
    assert "any more" in (await asyncio.wait_for(running.wait(), 10)).why
    running = await runner.start(plan_at(socket), short_tmp / "log")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.wait(), 1.0)
    exit_ = await running.stop(0.0)  # whoever started it has waited long enough
    assert exit_.asked
    running = await runner.start(plan_at(socket), short_tmp / "log")
    assert not (await asyncio.wait_for(running.wait(), 10)).asked, "it is a stranger again"


async def test_a_stop_lets_go(short_tmp: Path) -> None:
    """The server goes on, its socket stays, and a second stop says the same."""
    socket, runner = short_tmp / "s", ServerRunner()
    server = await listening(socket)
    running = await runner.start(plan_at(socket), short_tmp / "log")
    assert running.pid is None and runner.memory_bytes(running) is None
    assert await running.stop(5.0) == await running.stop(0.0) == await running.wait()
    assert server.is_serving() and socket.exists()
    assert (await runner.survivors(), await runner.departed()) == ((), ())
    server.close()
