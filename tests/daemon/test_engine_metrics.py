"""Engines that tell their own metrics, refuse to, or hang, asked over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from corral import clock
from corral.engines.plan import Endpoint, Footprint, LaunchPlan
from corral.observability.engine_metrics import EngineMetrics
from corral.supervisor.machine import State
from corral.supervisor.unit import Unit

TEXT = b"# TYPE llamacpp:n_decode_total counter\nllamacpp:n_decode_total 7\n"


@dataclass
class Named:
    name: str


@dataclass
class Engine:
    """As much of a unit as is looked at."""

    model: Named
    name: str
    plan: LaunchPlan
    state: State = State.READY


class Asked:
    """An engine that counts how often it is asked, and answers with `status`; never, where that is 0."""

    def __init__(self, status: int) -> None:
        self.status, self.count = status, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        if self.status:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (self.status, len(TEXT), TEXT))
        await reader.read()  # the head, and until the other side goes
        writer.close()


class World:
    """Engines by name, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engines: dict[str, Engine] = {}
        self.asked: dict[str, Asked] = {}
        self.failed: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.servers: list[asyncio.Server] = []
        self.metrics = EngineMetrics(lambda: cast(list[Unit], self.engines.values()), self.spawn, self.failed.append)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        self.tasks.append(task := asyncio.create_task(work, name=name))
        return task

    async def add(self, name: str, status: int, argv: tuple[str, ...] = ("--metrics",)) -> Engine:
        path = self.folder / f"{name}.sock"
        self.asked[name] = Asked(status)
        self.servers.append(await asyncio.start_unix_server(self.asked[name], path))
        plan = LaunchPlan(f"{name}.1", name, 1, "llama.cpp", "1", argv, Endpoint(path), Footprint({}))
        self.engines[name] = Engine(Named(name), f"{name}.1", plan)
        return self.engines[name]

    def told(self) -> dict[str, str]:
        return {unit: families[0].samples[0].value for _, unit, families in self.metrics.latest() if families}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    for server in made.servers:
        server.close()
        await server.wait_closed()


async def test_the_first_scrape_waits_a_moment_and_has_what_engines_say(world: World) -> None:
    await world.add("demo", 200)
    await world.metrics.scraped()
    await asyncio.gather(*world.tasks)
    assert world.told() == {"demo": "7"} and not world.failed


async def test_an_engine_that_hangs_holds_nobody_up_but_the_first(world: World) -> None:
    await world.add("demo", 200)
    await world.add("stuck", 0)
    await world.metrics.scraped()
    assert [task.done() for task in world.tasks] == [True, False], "it is not waited for to its end"
    for _ in range(5):
        await world.metrics.scraped()
        world.metrics.tick()
    assert world.asked["stuck"].count == 1, "one question at a time"
    await asyncio.gather(*world.tasks)
    assert world.told() == {"demo": "7"} and world.failed == ["stuck"]


async def test_an_engine_that_refuses_is_counted_and_not_asked_on_every_tick(world: World) -> None:
    await world.add("odd", 500)
    await world.metrics.scraped()
    await asyncio.gather(*world.tasks)
    for _ in range(5):
        world.metrics.tick()
    await asyncio.gather(*world.tasks)
    assert (world.failed, world.asked["odd"].count, world.told()) == (["odd"], 1, {})


@pytest.mark.parametrize("state", [state for state in State if state not in (State.READY, State.DRAINING)])
async def test_only_engines_that_are_ready_are_asked(world: World, state: State) -> None:
    (await world.add("demo", 200)).state = state
    await world.metrics.scraped()
    world.metrics.tick()
    assert world.asked["demo"].count == 0 and not world.tasks


async def test_an_engine_without_metrics_is_not_asked(world: World) -> None:
    await world.add("demo", 200, argv=("--slots",))
    await world.metrics.scraped()
    assert not world.tasks


async def test_what_an_earlier_process_said_is_not_shown(world: World) -> None:
    engine = await world.add("demo", 200)
    await world.metrics.scraped()
    await asyncio.gather(*world.tasks)
    engine.name, engine.plan = "demo.2", replace(engine.plan, unit="demo.2")
    assert world.told() == {}
    world.metrics.tick()  # one that is new is asked before the next scrape
    await asyncio.gather(*world.tasks)
    assert world.told() == {"demo": "7"}


async def test_nobody_is_asked_while_nobody_scrapes(world: World) -> None:
    await world.add("demo", 200)
    world.metrics.tick()
    assert not world.tasks


@pytest.mark.parametrize("every_s", [0.5, 1.0, 1.5, 5.0, 15.0, 60.0])
@pytest.mark.parametrize("later_s", [0.0, 0.1, 0.5, 0.9])
async def test_what_is_shown_is_no_older_than_a_scrape(
    world: World, monkeypatch: pytest.MonkeyPatch, every_s: float, later_s: float
) -> None:
    """However often somebody scrapes, and however the ticks of a second fall between: each scrape but the first few
    shows what an engine said since the one before, or lately; and none is asked more than once a second."""
    now, asked, shown = 1000.0, list[float](), list[tuple[float, float]]()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    await world.add("demo", 200)
    scrapes = [1000.0 + number * every_s for number in range(40)]
    ticks = [1000.0 + later_s + number for number in range(int(40 * every_s) + 1)]
    for at, what in sorted([(at, "scrape") for at in scrapes] + [(at, "tick") for at in ticks]):
        now = at
        before = world.asked["demo"].count
        if what == "scrape":
            shown.append((now, asked[-1] if asked else now))
            await world.metrics.scraped()
        else:
            world.metrics.tick()
        await asyncio.gather(*world.tasks)
        asked += [now] * (world.asked["demo"].count - before)
    assert all(at - said <= max(2.0, every_s) for at, said in shown[4:]), shown
    assert all(later - earlier >= 0.999 for earlier, later in pairwise(asked)), asked
