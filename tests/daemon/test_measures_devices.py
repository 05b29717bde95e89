"""What `Measures` tells of a machine with GPUs to those who decide: the scheduler, the planner, people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from corral.config.settings import ModelSettings, Settings
from corral.engines.plan import Endpoint, Footprint, LaunchPlan
from corral.engines.report import Report
from corral.events import EventLog
from corral.hardware.asking import Asker, command
from corral.hardware.watch import Watcher
from corral.ledger.ledger import Ledger
from corral.measures import Measures
from corral.models.memory.predict import Parts
from corral.scheduler.messages import MemorySeen
from corral.supervisor.machine import State
from support.gpus import GIB, write_library, write_machine


@asynccontextmanager
async def measures(
    tmp_path: Path, settings: Settings, *, say: Callable[[str], None] = lambda text: None
) -> AsyncIterator[Measures]:
    library = write_library(tmp_path / "library")
    root = write_machine(tmp_path / "root")

    def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(work, name=name)

    watcher = Watcher(root=root, asker=Asker(command(root, library)))
    events = EventLog()
    events.keep = lambda entry: say(entry.text)
    made = Measures(
        list, watcher, Ledger(), settings=lambda: settings, events=events, spawn=spawn,
        measured=lambda model, footprint, real: None,
    )  # fmt: skip
    try:
        yield made
    finally:
        await made.aclose()


async def test_devices(tmp_path: Path) -> None:
    """People see each device with what others hold, its budget and what is left free."""
    settings = Settings({}, memory={"gpu0": 12 * GIB}, headroom={"cpu": 2 * GIB})
    async with measures(tmp_path, settings) as each:
        cpu, first, *_ = await each.devices()
    assert (cpu.name, cpu.others_bytes, cpu.budget_bytes, cpu.headroom_bytes) == (
        "cpu", 32 * GIB, (cpu.total_bytes or 0) - 2 * GIB, 2 * GIB,  # as the scheduler has it: nobody has said less
    )  # fmt: skip
    assert (first.name, first.others_bytes, first.budget_bytes, first.headroom_bytes, first.source) == (
        "gpu0", 8 * GIB, 12 * GIB, 512 << 20, "NVML",
    )  # fmt: skip


async def test_reading(tmp_path: Path) -> None:
    """The scheduler gets free and total memory by device, of a moment not before it asked."""
    async with measures(tmp_path, Settings({})) as each:
        before = await each.look()
        after = await each.look()
    assert after.free["gpu1"] == 16 * GIB
    assert after.total["gpu2"] == 24 * GIB
    assert after.at > before.at > 0


async def test_planner(tmp_path: Path) -> None:
    """Who plans in a thread gets the devices as they are; on the event loop itself, those of the last look."""
    async with measures(tmp_path, Settings({}, memory={"cpu": GIB})) as each:
        assert each.machine().devices == ()
        machine = await asyncio.to_thread(each.machine)
        assert [device.name for device in machine.devices] == ["cpu", "gpu0", "gpu1", "gpu2", "gpu3"]
        assert machine.budgets == {"cpu": GIB}
        assert [device.name for device in each.machine().devices] == [device.name for device in machine.devices]


async def test_samples_only_when_wanted(tmp_path: Path) -> None:
    """Sampling goes on while something is wanted, and ends with its task."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    wanted = False
    async with measures(tmp_path, Settings({})) as each:
        idle = asyncio.create_task(each.sample(lambda: wanted, lambda reading: seen.put_nowait(reading.at), 0.001))
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen.empty()
        wanted = True
        assert await asyncio.wait_for(seen.get(), 20) > 0
        assert await asyncio.wait_for(seen.get(), 20) > 0
        idle.cancel()
        await asyncio.wait({idle})


async def test_samples_while_watched(tmp_path: Path) -> None:
    """The latest figures are given at once, kept fresh in the background while somebody asks for them, and nobody who
    decides is told of those readings."""
    told: list[MemorySeen] = []
    async with measures(tmp_path, Settings({})) as each:
        sampling = asyncio.create_task(each.sample(lambda: False, told.append, 3600))
        await asyncio.sleep(0)
        assert each.latest() == []
        deadline = asyncio.get_running_loop().time() + 20
        while not (found := each.latest()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        sampling.cancel()
        await asyncio.wait({sampling})
    first = next(device for device in found if device.name == "gpu0")
    assert (first.utilisation, first.temperature_c, first.power_w, first.power_limit_w) == (0.37, 61.0, 187.25, 300.0)
    assert told == []


async def test_what_goes_wrong_ends_nothing(tmp_path: Path) -> None:
    """A file that confuses the prediction and a reading that confuses its listener are told as bugs, once each."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    model = ModelSettings("odd", tmp_path / "odd.gguf")

    def footprint(model: ModelSettings) -> Footprint:
        raise KeyError(model.name)

    def choke(reading: MemorySeen) -> None:
        heard.put_nowait("reading")
        raise ValueError("no more")

    async with measures(tmp_path, Settings({}), say=heard.put_nowait) as each:
        await each.foretell(model, footprint)
        assert "what odd will take could not be foretold" in heard.get_nowait()
        sampling = asyncio.create_task(each.sample(lambda: True, choke, 0.001))
        said = [await asyncio.wait_for(heard.get(), 20) for _ in range(4)]
        sampling.cancel()
        await asyncio.wait({sampling})
    assert [text for text in said if text != "reading"] == [said[1]]
    assert "the devices could not be sampled" in said[1]


async def test_no_news_is_no_event(tmp_path: Path) -> None:
    """A load that took what was expected is noted and not told of; so is growth that people would not see in the
    figures. What differs as they see it is an event."""
    said: list[str] = []
    mib = 1 << 20
    predicted = Footprint({"cpu": 10 * mib}, "probed", {"cpu": Parts(10 * mib)})
    plan = LaunchPlan("m.1", "m", 1, "fake", "1", ("x",), Endpoint(), predicted)
    unit: Any = SimpleNamespace(plan=plan, load_ms=5.0, name="m.1", state=State.READY)
    async with measures(tmp_path, Settings({}), say=said.append) as each:
        await each._remember(unit, Report({"cpu": Parts(10 * mib)}), {})
        assert unit.plan.footprint.origin == "measured"
        assert said == []
        unit.plan = plan
        await each._remember(unit, Report({"cpu": Parts(12 * mib)}), {})
        assert said == ["m.1 takes 12.0 MiB, where 10.0 MiB were expected"]
