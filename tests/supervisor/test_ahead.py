"""What is done for a start that has to wait."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.config.settings import ModelSettings
from corral.engines.plan import Endpoint, Footprint, LaunchPlan
from corral.errors import ModelFileError
from corral.supervisor import ahead
from corral.supervisor.ahead import Ahead

MODEL = ModelSettings("m", Path("/nowhere"))
PLAN = LaunchPlan("m.1", "m", 1, "fake", "1", ("x",), Endpoint(), Footprint(MappingProxyType({})))


class Maker:
    """Makes plans when it is told to."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.go = threading.Event()
        self.made = 0
        self.forgone = 0

    def make(self) -> tuple[LaunchPlan, Path]:
        self.go.wait(10)
        self.made += 1
        self.log.touch()
        return PLAN, self.log

    def forget(self) -> None:
        self.forgone += 1


@pytest.fixture
def maker(short_tmp: Path) -> Maker:
    return Maker(short_tmp / "1.log")


async def test_taken(maker: Maker) -> None:
    """Who takes it gets the plan and the log, made once; dropping it afterwards takes nothing away."""
    work = Ahead(MODEL, 1, maker.make, maker.forget)
    running = asyncio.create_task(work.run())
    taking = asyncio.create_task(work.take())
    maker.go.set()
    assert await taking == await work.take() == (PLAN, maker.log)
    await running
    work.drop()
    assert (maker.made, maker.forgone, maker.log.exists()) == (1, 0, True)


@pytest.mark.parametrize("early", [True, False])
async def test_in_vain(maker: Maker, early: bool) -> None:
    """When nobody takes it, its log goes and what the plan held is let go, once, whenever it is dropped."""
    work = Ahead(MODEL, 1, maker.make, maker.forget)
    running = asyncio.create_task(work.run())
    await asyncio.sleep(0)
    if early:
        work.drop()
        maker.go.set()
        await running
    else:
        maker.go.set()
        await running
        assert maker.log.exists()
        work.drop()
    work.drop()
    assert (maker.made, maker.forgone, maker.log.exists()) == (1, 1, False)
    assert not work.serves(MODEL, 1)


async def test_what_it_serves(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the start with the same settings and generation, as long as it is fresh."""
    work = Ahead(MODEL, 1, maker.make, maker.forget)
    assert work.serves(ModelSettings("m", Path("/nowhere")), 1)
    assert not work.serves(MODEL, 2)
    assert not work.serves(ModelSettings("m", Path("/nowhere"), context=1), 1)
    maker.go.set()
    await work.run()
    assert work.serves(MODEL, 1)
    monkeypatch.setattr(ahead, "FRESH_S", -1.0)
    assert not work.serves(MODEL, 1)
    work.drop()


async def test_what_went_wrong(maker: Maker) -> None:
    """What making the plan raised is raised to who takes it; nobody is served by it later, and nothing else breaks."""

    def fail() -> tuple[LaunchPlan, Path]:
        raise ModelFileError("of the test")

    work = Ahead(MODEL, 1, fail, maker.forget)
    taking = asyncio.create_task(work.take())
    await work.run()
    with pytest.raises(ModelFileError):
        await taking
    assert not work.serves(MODEL, 1)


async def test_one_after_the_other(maker: Maker, short_tmp: Path) -> None:
    """A preparation waits for an earlier one of the same unit, so that letting go of that one cannot undo it."""
    order: list[str] = []
    first = Ahead(MODEL, 1, maker.make, lambda: order.append("first forgone"))
    running = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    first.drop()

    def second_make() -> tuple[LaunchPlan, Path]:
        order.append("second made")
        return PLAN, short_tmp / "2.log"

    second = Ahead(MODEL, 2, second_make, maker.forget, after=first)
    later = asyncio.create_task(second.run())
    await asyncio.sleep(0)
    maker.go.set()
    await asyncio.gather(running, later)
    assert order == ["first forgone", "second made"]
    second.drop()


@pytest.mark.parametrize("dropped", [True, False])
async def test_plan_is_told(maker: Maker, dropped: bool) -> None:
    """The plan is told as soon as it is there, which is before it is taken; not when nobody waits for it any more."""
    told: list[LaunchPlan] = []
    work = Ahead(MODEL, 1, maker.make, maker.forget, planned=told.append)
    running = asyncio.create_task(work.run())
    await asyncio.sleep(0)
    if dropped:
        work.drop()
    maker.go.set()
    await running
    assert told == ([] if dropped else [PLAN])
    work.drop()
