"""One unit with a real warden and everything else it needs: `world`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Timeouts
from corral.engines.adapter import Adapter
from corral.errors import CorralError
from corral.events import EventLog
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from corral.supervisor.means import Means
from corral.supervisor.unit import Unit
from support.fake_adapter import FakeAdapter


@dataclass
class Told:
    """A listener that remembers."""

    ready: list[tuple[str, int]] = field(default_factory=list)
    ended: list[tuple[str, int, CorralError | None, float]] = field(default_factory=list)
    slept: list[tuple[str, int]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def unit_ready(self, model: str, generation: int) -> None:
        self.ready.append((model, generation))
        self.news.set()

    def unit_slept(self, model: str, generation: int) -> None:
        self.slept.append((model, generation))
        self.news.set()

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self.ended.append((model, generation, error, retry_at))
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


@dataclass
class World:
    """One unit, and everything around it."""

    unit: Unit
    told: Told
    events: EventLog
    model: ModelSettings
    link: WardenLink

    @property
    def state(self) -> str:
        return str(self.unit.state)

    def states(self) -> list[str]:
        return [event.data["after"] for event in self.events.since() if event.kind == "unit.state"]


@asynccontextmanager
async def world(
    paths: Paths, *args: str, timeouts: Timeouts | None = None, adapter: Adapter | None = None
) -> AsyncIterator[World]:
    timeouts = timeouts or Timeouts(start_s=10, stop_s=5)
    model = ModelSettings("m", Path("/nowhere"), args=args)
    told, events = Told(), EventLog()
    paths.make()
    async with await WardenLink.connect(paths) as link, asyncio.TaskGroup() as group:
        runner = ProcessRunner(link, paths)

        def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
            return group.create_task(work, name=name)

        means = Means(paths, events, {"llama.cpp": adapter or FakeAdapter()}, {"process": runner}, told, spawn)
        unit = Unit(model, timeouts, means)
        try:
            yield World(unit, told, events, model, link)
        finally:
            await unit.stop("the test ends")
            await link.shutdown(1.0)
