"""Going to sleep and waking, with a process that cannot: what a real vLLM does is in tests/vllm."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from corral.config.paths import Paths
from corral.engines.plan import Endpoint
from corral.supervisor import rest
from corral.supervisor.machine import Event
from support.unit_world import World, world


@asynccontextmanager
async def says(path: Path, body: bytes) -> AsyncIterator[Endpoint]:
    """An engine that answers everything so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(answer, path)
    async with server:
        yield Endpoint(socket=path)


class Grants:
    """Somebody is being answered for `looks` more looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.paused = looks, list[bool]()

    def pause(self, model: str, generation: int, on: bool) -> None:
        self.paused.append(on)

    def is_busy(self, model: str) -> bool:
        self.looks -= 1
        return self.looks >= 0


async def started(w: World) -> None:
    await w.unit.start(w.model, 1)
    assert w.unit.plan is not None
    w.unit.plan = replace(w.unit.plan, sleep=1)


async def test_one_that_does_not_sleep_is_stopped(paths: Paths) -> None:
    """An engine that refuses to sleep gives its memory back all the same: it ends, and a warning says so."""
    async with world(paths) as w:
        await started(w)
        await rest.sleep(w.unit, "it was idle")
        assert w.state == "stopped" and not w.told.slept
        assert w.told.ended == [("m", 1, None, 0.0)]
        assert [e.text for e in w.events.since() if e.kind == "unit.warning" and "does not sleep" in e.text]


async def test_one_that_does_not_wake_counts_as_crashed(paths: Paths) -> None:
    """A sleeping process that does not come back is killed, and may be started again at once."""
    async with world(paths) as w:
        await started(w)
        w.unit.shows(Event.SLEPT, "asleep")
        assert w.state == "sleeping" and w.told.slept == [("m", 1)]
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGSTOP)
        w.unit.timeouts = replace(w.unit.timeouts, start_s=0.3)
        await rest.wake(w.unit)
        await w.told.until(lambda: bool(w.told.ended))
        [(_, _, error, _)] = w.told.ended
        assert error is None and w.state == "backoff"
        assert w.unit.reason is not None and "did not wake up" in w.unit.reason


async def test_one_that_dies_asleep_is_noticed(paths: Paths) -> None:
    """A process that is killed while it sleeps is gone, and its model is started anew when somebody asks."""
    async with world(paths) as w:
        await started(w)
        w.unit.shows(Event.SLEPT, "asleep")
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGKILL)
        await w.told.until(lambda: bool(w.told.ended))
        assert w.state == "backoff"
        await w.unit.start(w.model, 2)
        assert w.state == "ready"


async def test_one_that_somebody_else_had_sleep_counts_as_asleep(paths: Paths) -> None:
    """Nothing more is sent to it from then on; it is told of when what ran has ended."""
    async with world(paths) as w, says(paths.runtime_dir / "e.sock", b'{"is_sleeping": true}') as endpoint:
        await started(w)
        assert w.unit.plan is not None
        own, w.unit.plan = w.unit.plan, replace(w.unit.plan, endpoint=endpoint)
        grants = Grants(3)
        await rest.notice(w.unit, grants)
        assert w.state == "sleeping" and w.told.slept == [("m", 1)] and grants.paused == [True, False]
        assert grants.looks < 0
        w.unit.plan = own


async def test_one_that_is_awake_stays_so(paths: Paths) -> None:
    """An engine that refused to sleep, or has no such thing, goes on as it was."""
    async with world(paths) as w, says(paths.runtime_dir / "e.sock", b'{"is_sleeping": false}') as endpoint:
        await started(w)
        assert w.unit.plan is not None
        own, w.unit.plan = w.unit.plan, replace(w.unit.plan, endpoint=endpoint)
        grants = Grants(0)
        await rest.notice(w.unit, grants)
        assert w.state == "ready" and not w.told.slept and not grants.paused
        w.unit.plan = own
