"""Going to sleep and waking, with a process that cannot: what a real vLLM does is in tests/vllm."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from corral.config.paths import Paths
from corral.supervisor import rest
from corral.supervisor.machine import Event
from support.unit_world import World, world


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
