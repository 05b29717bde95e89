"""Looks at the memory, through the scheduler's loop and a real warden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.engines.plan import Footprint
from corral.errors import CannotFit
from corral.events import EventLog
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.scheduler.messages import MemorySeen
from corral.scheduler.state import Policy, Spec
from corral.supervisor.fleet import Fleet, Relay
from corral.supervisor.means import Means
from support.engines import until
from support.fake_adapter import FakeAdapter

SETTINGS = Settings(models={"one": ModelSettings("one", Path("/nowhere"))})


@dataclass
class Parts:
    scheduler: Scheduler
    events: EventLog


class Sized(FakeAdapter):
    """Of which a start would take so much now."""

    def __init__(self, size: int) -> None:
        self.size = size

    def footprint(self, model: ModelSettings) -> Footprint:
        return Footprint({"gpu0": self.size})


@asynccontextmanager
async def scheduling(
    paths: Paths,
    look: Callable[[], Awaitable[MemorySeen]],
    policy: Policy = Policy(headroom=10),  # noqa: B008 - it is frozen
    adapter: FakeAdapter | None = None,
) -> AsyncIterator[Parts]:
    """One model of 100 bytes, whose memory `look` tells of."""
    paths.make()
    async with await WardenLink.connect(paths) as link, asyncio.TaskGroup() as group:

        def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
            return group.create_task(work, name=name)

        events, relay, runner = EventLog(), Relay(), ProcessRunner(link, paths)
        means = Means(
            paths,
            events,
            {"llama.cpp": adapter or Sized(100)},
            {"process": runner},
            relay,
            spawn,
            planned=lambda unit, footprint: scheduler.planned(unit, footprint),
        )
        fleet = Fleet(SETTINGS, means)
        specs = {"one": Spec("one", footprint={"gpu0": 100})}
        scheduler = relay.to = Scheduler(
            specs, policy, units=fleet, events=events, group=group, queue_timeout_s=10, look=look
        )
        yield Parts(scheduler, events)
        scheduler.close()
        await asyncio.gather(*(unit.stop("the test ends") for unit in fleet))
        await link.shutdown(1.0)


async def test_a_start_waits_for_memory_to_be_free(paths: Paths) -> None:
    """While others hold the memory nothing is started; as soon as a look finds it free, it is."""
    free = [50, 50, 200]
    looks = 0

    async def look() -> MemorySeen:
        nonlocal looks
        looks += 1
        return MemorySeen({"gpu0": free.pop(0) if len(free) > 1 else free[0]}, {"gpu0": 300}, clock.monotonic())

    async with scheduling(paths, look) as parts, parts.scheduler.lease("one") as lease:
        assert lease.unit == "one.1"
        assert lease.queue_position == 1
    assert looks >= 3
    waits = next(event for event in parts.events.since() if event.kind == "request.waits")
    assert waits.data["position"] == 1
    (lacks,) = [event for event in parts.events.since() if event.kind == "unit.waits"]
    assert lacks.text == "one waits for memory: it needs 100 B on gpu0, 50 B free, 250 B used by others"
    assert lacks.data["missing"] == {"gpu0": 60}
    assert lease.waited_for.startswith("needs 100 B on gpu0, 50 B free")


async def test_who_comes_later_is_told_too(paths: Paths) -> None:
    """Once it is known what is missing, the event of each further request says it."""
    free = 50

    async def look() -> MemorySeen:
        return MemorySeen({"gpu0": free}, {"gpu0": 300}, clock.monotonic())

    async with scheduling(paths, look) as parts, asyncio.TaskGroup() as group:

        async def ask() -> None:
            async with parts.scheduler.lease("one"):
                pass

        def told(kind: str) -> list[str]:
            return [event.text for event in parts.events.since() if event.kind == kind]

        group.create_task(ask())
        await until(lambda: told("unit.waits"), "it to be said")
        group.create_task(ask())
        await until(lambda: len(told("request.waits")) == 2, "the second to wait")
        assert told("request.waits")[1] == (
            "a request for one waits as number 2 until there is memory: "
            "it needs 100 B on gpu0, 50 B free, 250 B used by others"
        )
        free = 300
    assert len(told("unit.waits")) == 1


async def test_what_no_waiting_could_change_is_refused_at_once(paths: Paths) -> None:
    """What needs more than the whole device less its headroom does not wait for its deadline."""

    async def look() -> MemorySeen:
        return MemorySeen({"gpu0": 50}, {"gpu0": 105}, clock.monotonic())

    async with scheduling(paths, look) as parts:
        with pytest.raises(CannotFit, match="needs 100 B on gpu0, and 95 B may be used there"):
            await parts.scheduler.ensure_ready("one", deadline=float("inf"))


async def test_the_deadline_says_what_was_missing(paths: Paths) -> None:
    """A request whose memory others hold until its deadline is told how much of it there was."""

    async def look() -> MemorySeen:
        return MemorySeen({"gpu0": 50}, {"gpu0": 300}, clock.monotonic())

    async with scheduling(paths, look) as parts:
        with pytest.raises(CannotFit, match="needs 100 B on gpu0, 50 B free, 250 B used by others"):
            await parts.scheduler.ensure_ready("one", deadline=clock.monotonic() + 0.3)


async def test_a_look_that_fails_is_said_and_holds_nobody_up(paths: Paths) -> None:
    """When the memory cannot be read the start goes on, and an event says why it was not judged."""

    async def look() -> MemorySeen:
        raise OSError("the driver is gone")

    async with scheduling(paths, look) as parts:
        await parts.scheduler.ensure_ready("one")
    assert [event.text for event in parts.events.since() if event.kind == "scheduler.blind"] == [
        "the memory could not be read: OSError: the driver is gone"
    ]


class Odd(FakeAdapter):
    """Whose model's file confuses the prediction."""

    def footprint(self, model: ModelSettings) -> Footprint:
        raise KeyError(model.name)


async def test_what_corral_starts_by_itself_has_plans_of_its_own(paths: Paths) -> None:
    """The default model, whose known figures find no room beside what others hold, is asked what it would take now, and
    is started with that."""

    async def look() -> MemorySeen:
        return MemorySeen({"gpu0": 50}, {"gpu0": 300}, clock.monotonic())

    coming_back = Policy(headroom=10, default_model="one", return_s=0.01)
    async with scheduling(paths, look, coming_back, Sized(20)) as parts:
        parts.scheduler.memory_seen(await look())
        await until(lambda: any(event.kind == "scheduler.start" for event in parts.events.since()), "the start")
        place = parts.scheduler.place("one")
        assert place is not None
        assert place.spec.footprint == {"gpu0": 20}
        kinds = [event.kind for event in parts.events.since()]
        assert kinds.index("unit.waits") < kinds.index("scheduler.start")


async def test_a_file_that_confuses_the_prediction_is_told_of(paths: Paths) -> None:
    """What cannot be foretold is a bug in the log, and ends nothing."""

    async def look() -> MemorySeen:
        return MemorySeen({"gpu0": 50}, {"gpu0": 300}, clock.monotonic())

    coming_back = Policy(headroom=10, default_model="one", return_s=0.01)
    async with scheduling(paths, look, coming_back, Odd()) as parts:
        parts.scheduler.memory_seen(await look())

        def bugs() -> list[str]:
            return [event.text for event in parts.events.since() if event.kind == "bug"]

        await until(bugs, "the bug to be told")
        assert bugs() == ["what one will take could not be foretold: KeyError: 'one'"]
