"""What should always be there is asked for again; the rest is not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Timeouts
from corral.errors import CorralError, ModelFileError, StartFailed
from corral.events import EventLog
from corral.supervisor.keep import Keeper, hopeless
from corral.supervisor.machine import Event
from corral.supervisor.means import Means
from corral.supervisor.unit import Unit
from support.engines import until

PLAIN = ModelSettings("m", Path("/nowhere"))


class Told:
    """Who is told after the keeper."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self.ended: list[str] = []

    def unit_ready(self, model: str, generation: int) -> None:
        self.ready.append(model)

    def unit_slept(self, model: str, generation: int) -> None: ...

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self.ended.append(model)


class World:
    """A keeper of one unit that has just failed."""

    def __init__(self, paths: Paths, model: ModelSettings) -> None:
        self.events, self.told, self.asked = EventLog(), Told(), list[str]()
        means = Means(paths, self.events, {}, {}, self.told, self.spawn)
        self.unit = Unit(model, Timeouts(), means)
        self.tasks: list[asyncio.Task[Any]] = []
        self.keeper = Keeper(self.told, lambda name: self.unit, self.ask, events=self.events, spawn=self.spawn)
        for event in (Event.START_ASKED, Event.FAILED):
            self.unit.machine.move(event, at_wall_s=0.0, generation=1)

    async def ask(self, model: str) -> None:
        self.asked.append(model)
        raise StartFailed("once more")

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    def end(self, error: CorralError | None = None, pause_s: float = 0.0) -> None:
        self.keeper.unit_ended("m", 1, error, clock.monotonic() + pause_s)

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(*self.tasks)


@pytest.mark.parametrize(
    ("model", "why"), [(replace(PLAIN, pin=True), "pinned"), (replace(PLAIN, preload=True), "preloaded")]
)
async def test_a_kept_one_is_asked_for_again(paths: Paths, model: ModelSettings, why: str) -> None:
    """After a crash a pinned or preloaded model is asked for as soon as it may be, and it is said why."""
    world = World(paths, model)
    world.end()
    await until(lambda: world.asked, "it to be asked for")
    await world.settled()
    assert world.told.ended == ["m"] and world.asked == ["m"]
    [event] = [each for each in world.events.since() if each.kind == "unit.wanted"]
    assert why in event.text


async def test_others_wait_for_somebody(paths: Paths) -> None:
    """A model that need not be there is not asked for; the news of its end goes on all the same."""
    world = World(paths, PLAIN)
    world.end()
    assert not world.keeper._timers and world.told.ended == ["m"]


async def test_what_was_stopped_meanwhile_stays_so(paths: Paths) -> None:
    """Somebody's stop during the pause counts."""
    world = World(paths, replace(PLAIN, pin=True))
    world.end(pause_s=0.01)
    world.unit.machine.move(Event.STOP_ASKED, at_wall_s=0.0, generation=1)
    await until(lambda: not world.keeper._timers, "the pause to end")
    await world.settled()
    assert not world.asked


async def test_what_gave_up_is_left_alone(paths: Paths) -> None:
    """After too many failures nobody asks unasked."""
    world = World(paths, replace(PLAIN, pin=True))
    for event in (Event.START_ASKED, Event.GAVE_UP):
        world.unit.machine.move(event, at_wall_s=0.0, generation=1)
    world.end()
    assert not world.keeper._timers


async def test_it_stops_with_the_daemon(paths: Paths) -> None:
    """After `close` nothing is asked for."""
    world = World(paths, replace(PLAIN, pin=True))
    world.end(pause_s=3600)
    world.keeper.close()
    assert not world.keeper._timers


def test_what_another_try_would_not_help() -> None:
    """A file that is missing or a flag nobody knows is there at the next try too; a crash need not be."""
    assert not hopeless(None)
    assert not hopeless(StartFailed("x", kind="memory")) and not hopeless(StartFailed("x"))
    assert hopeless(StartFailed("x", kind="flag")) and hopeless(ModelFileError("x"))
