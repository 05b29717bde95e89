"""Engines of an earlier daemon, taken over with a real warden and real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.engines.adapter import Start
from corral.engines.plan import Endpoint
from corral.errors import UnknownModel
from corral.events import EventLog
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.scheduler.state import Phase, Policy, Spec
from corral.supervisor.adopt import adopt_survivors
from corral.supervisor.fleet import Fleet, Relay
from corral.supervisor.means import Means
from corral.supervisor.probe import wait_ready
from support.fake_adapter import FakeAdapter

NAMES = ("one", "two")
SETTINGS = Settings(models={name: ModelSettings(name, Path("/nowhere")) for name in NAMES})


class _Daemon:
    """A supervisor and a scheduler on one link."""

    def __init__(self, paths: Paths, link: WardenLink, group: asyncio.TaskGroup) -> None:
        self.events, self.runner, relay = EventLog(), ProcessRunner(link, paths), Relay()

        def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
            return group.create_task(work, name=name)

        adapters = {"llama.cpp": FakeAdapter()}
        self.adapters = adapters
        self.fleet = Fleet(SETTINGS, Means(paths, self.events, adapters, {"process": self.runner}, relay, spawn))
        specs = {name: Spec(name) for name in NAMES}
        self.scheduler = relay.to = Scheduler(
            specs, Policy(), units=self.fleet, events=self.events, group=group, queue_timeout_s=10
        )

    async def until(self, text: str) -> None:
        async with asyncio.timeout(10):
            async for event in self.events.follow():
                if text in event.text:
                    return


async def test_one_that_dies_as_it_is_adopted_is_started_again(paths: Paths) -> None:
    """An engine that ends while others are still being adopted is gone for the scheduler too: the next request starts
    it anew."""
    paths.make()
    async with await WardenLink.connect(paths) as link:  # an earlier daemon
        pids = {name: await _leave_running(paths, link, name) for name in NAMES}

    async with await WardenLink.connect(paths) as link, asyncio.TaskGroup() as group:
        second = _Daemon(paths, link, group)

        def adopted(name: str, generation: int) -> None:
            second.scheduler.adopt(name, generation)
            if name == "one":
                os.kill(pids[name], signal.SIGKILL)

        names = await adopt_survivors(
            await second.runner.survivors(), second.fleet, SETTINGS, second.adapters, second.events, adopted
        )
        assert sorted(names) == ["one", "two"]
        await second.until("one.1: ready → backoff")
        assert (one := second.scheduler.place("one")) is not None and one.phase is Phase.ABSENT
        assert (two := second.scheduler.place("two")) is not None and two.phase is Phase.READY
        await second.scheduler.ensure_ready("one")
        assert one.generation == 2
        await asyncio.gather(*(unit.stop("the test ends") for unit in second.fleet))
        await link.shutdown(1.0)


async def test_a_start_of_what_was_just_removed_is_no_bug(paths: Paths) -> None:
    """A start that was decided before its model was removed ends as one that failed, and nothing is started."""
    paths.make()
    async with await WardenLink.connect(paths) as link, asyncio.TaskGroup() as group:
        daemon = _Daemon(paths, link, group)
        asking = group.create_task(_refused(daemon.scheduler, "one"))
        await asyncio.sleep(0)  # it has been decided, and nothing more
        daemon.fleet.configure(Settings(models={}))
        assert "removed from the configuration" in await asking
        assert "bug" not in [event.kind for event in daemon.events.since()]
        assert await link.list() == []
        await link.shutdown(1.0)


async def _refused(scheduler: Scheduler, name: str) -> str:
    try:
        await scheduler.ensure_ready(name)
    except UnknownModel as error:
        return error.message
    return ""


async def _leave_running(paths: Paths, link: WardenLink, name: str) -> int:
    model, socket = SETTINGS.models[name], paths.units_dir / f"{name}.1.sock"
    plan = FakeAdapter().plan(Start(model, generation=1, endpoint=Endpoint(socket=socket)))
    running = await ProcessRunner(link, paths).start(plan, paths.logs_dir / f"{name}.log")
    assert await wait_ready(plan.endpoint, plan.probe, clock.monotonic() + 10)
    assert running.pid is not None
    return running.pid
