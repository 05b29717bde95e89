"""`Measures`: what devices have and units hold, read from the running system, for whoever decides by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from corral import clock
from corral.api import DeviceInfo
from corral.config.settings import ModelSettings, Settings, budget_on, headroom_on
from corral.engines import executables, report_vllm
from corral.engines import report as report_llamacpp
from corral.engines.from_ledger import key_of, merged, names_of
from corral.engines.loaded import figures_of, peak_of
from corral.engines.plan import Footprint, LaunchPlan
from corral.engines.report import Report
from corral.engines.rooms import Machine
from corral.errors import Bug, CorralError, EngineError
from corral.events import EventLog
from corral.hardware.devices import CPU, Listed
from corral.hardware.watch import Look, Own, Watcher
from corral.lazy_dataclass import dataclass
from corral.ledger.ledger import Ledger
from corral.runners.memory import family, private_bytes
from corral.scheduler.messages import MemorySeen
from corral.supervisor.machine import State
from corral.supervisor.means import Spawn
from corral.supervisor.unit import Unit
from corral.units import show_bytes

_NO_NEWS_S: Final = 0.25
"""A look this young serves who plans, without another."""
_LOOK_WITHIN_S: Final = 5.0
_SETTLE_S: Final = 0.3
"""After a unit is ready its first request goes first."""
_TRIES: Final = 20
_HEAD_BYTES: Final = 1 << 20
EVERY_S: Final = 2.0
"""Between two samples, while there is reason for them."""
_CALM_S: Final = 0.5
_BETWEEN_S: Final = 0.02
_WATCHED_S: Final = 150.0
"""For so long after somebody asked for the latest figures they are kept fresh: scrapes come each minute or oftener."""
_OLD_S: Final = 10.0
"""What happened since a look that long ago is not what happens now."""
_APART_S: Final = 0.2
_RUNNING: Final = frozenset({State.STARTING, State.LOADING, State.READY, State.DRAINING, State.SLEEPING})


Measured = Callable[[str, Footprint, bool], None]


@dataclass(frozen=True, slots=True)
class _Held:
    """What single units hold now, in bytes by device; what is not told is missing."""

    by_unit: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def by_device(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for sizes in self.by_unit.values():
            for device, size in sizes.items():
                found[device] = found.get(device, 0) + size
        return found


class Measures:
    """Looks through one watcher. One event loop, but for `machine`.

    `measured` hears what a model takes, in bytes by device, whether a load of it was seen to, and how long that was.
    """

    def __init__(
        self,
        units: Callable[[], Iterable[Unit]],
        watcher: Watcher,
        ledger: Ledger,
        *,
        settings: Callable[[], Settings],
        events: EventLog,
        spawn: Spawn,
        measured: Measured,
    ) -> None:
        self._units, self._watcher, self._ledger = units, watcher, ledger
        self._settings, self._events, self._spawn, self._measured = settings, events, spawn, measured
        self._loop = asyncio.get_running_loop()
        self._held = _Held()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: set[str] = set()
        self._watched_until = 0.0
        self._somebody_watches = asyncio.Event()

    def own(self) -> Own:
        """For the watcher: our processes, and what they took where nothing else tells."""
        pids = [unit.running.pid for unit in self._running() if unit.running is not None and unit.running.pid]
        return Own(pids, _planned(self._running()))

    async def look(self) -> MemorySeen:
        """A fresh reading, as the scheduler wants it."""
        look = await self._look()
        return MemorySeen(look.free, look.totals, look.at, self._held.by_unit)

    async def sample(
        self, wanted: Callable[[], bool], tell: Callable[[MemorySeen], None], every_s: float = EVERY_S
    ) -> None:
        """Tells of a reading every `every_s` seconds while `wanted()`: a task of the daemon's, for ever. While somebody
        asks for `latest`, readings go on without it: a GPU that nobody uses or watches is left to sleep."""
        while True:
            needed = wanted()
            if needed or clock.monotonic() < self._watched_until:
                try:
                    seen = await self.look()
                    if needed:
                        tell(seen)
                        await self._note_peaks()
                except Exception as error:  # noqa: BLE001 - a figure less must not end the server
                    self._missed("the devices could not be sampled", error)
            self._somebody_watches.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._somebody_watches.wait(), every_s)

    async def recall(self) -> None:
        """Has adopted units' plans show what is known of their loads."""
        for unit in self._running():
            plan = unit.plan
            if plan is None:
                continue
            key = await asyncio.to_thread(key_of, plan)
            known = await asyncio.to_thread(self._ledger.find, key)
            if known is not None and unit.plan is plan:
                unit.plan = replace(plan, footprint=merged(plan.footprint, known))
                self._measured(plan.model, unit.plan.footprint, True)

    def foresee(self, models: Iterable[ModelSettings], footprint: Callable[[ModelSettings], Footprint]) -> None:
        """Begins to tell of each model what it will take, one after another and beside everything else: what its first
        start is judged by."""
        self._begin(self._foresee(list(models), footprint), "foresee")

    async def _foresee(self, models: list[ModelSettings], footprint: Callable[[ModelSettings], Footprint]) -> None:
        await asyncio.sleep(_CALM_S)
        for model in models:
            if model.ref is None:  # a stored model may have to be unpacked for it, which its first request is worth
                await self.foretell(model, footprint)
            await asyncio.sleep(_BETWEEN_S)

    async def foretell(self, model: ModelSettings, footprint: Callable[[ModelSettings], Footprint]) -> None:
        """Tells what `model` will take. Nothing where that cannot be found out: its start will say why."""
        try:
            found = await asyncio.to_thread(footprint, model)
        except (CorralError, OSError):
            return
        except Exception as error:  # noqa: BLE001 - one odd file must not end the server
            self._missed(f"what {model.name} will take could not be foretold", error, model.name)
            return
        self._measured(model.name, found, found.origin == "measured")

    def machine(self) -> Machine:
        """The devices, for planning. From any thread; from the event loop's own, those of the last look. Blocks for a
        look, seconds at most."""
        look = self._watcher.last
        if clock.monotonic() - look.at > _NO_NEWS_S or not look.devices:
            look = self._from_elsewhere(look)
        settings = self._settings()
        return Machine(look.devices, settings.memory, settings.headroom, self._held.by_device)

    def unit_ready(self, model: str, generation: int) -> None:
        """Has the load of a unit that is ready now measured, once its first request is on its way."""
        self._begin(self._measure(model, generation), f"measure {model}.{generation}")

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Ends what is being measured, and the watcher; writes down what was."""
        for task in list(self._tasks):
            task.cancel()
        await self._watcher.aclose()
        await asyncio.to_thread(self._ledger.close)

    async def devices(self) -> list[DeviceInfo]:
        """Every device with its memory now, and whose that is."""
        if clock.monotonic() - self._watcher.last.at > _OLD_S:
            await self._look()  # how busy a device is shows between two looks
            await asyncio.sleep(_APART_S)
        return self._told(await self._look())

    def latest(self) -> list[DeviceInfo]:
        """The same as it was at the last look, at once: a look in the background follows soon, and keeps on while this
        is asked for. Empty when nothing was looked at yet."""
        now = clock.monotonic()
        if now >= self._watched_until:
            self._somebody_watches.set()
        self._watched_until = now + _WATCHED_S
        return self._told(self._watcher.last)

    @property
    def held(self) -> Mapping[str, Mapping[str, int]]:
        """What each unit held at the last look, in bytes by device; what is not told is missing."""
        return self._held.by_unit

    def _told(self, look: Look) -> list[DeviceInfo]:
        settings, used = self._settings(), self._held.by_device
        found = []
        for each in look.devices:
            ours = used.get(each.name, 0)
            others = None
            if each.total_bytes is not None and each.free_bytes is not None:
                others = max(0, each.total_bytes - each.free_bytes - ours)
            found.append(
                DeviceInfo(
                    name=each.name,
                    vendor=each.vendor,
                    words=each.words,
                    total_bytes=each.total_bytes,
                    free_bytes=each.free_bytes,
                    used_bytes=ours,
                    others_bytes=others,
                    budget_bytes=budget_on(settings.memory, settings.headroom, each.name, each.total_bytes),
                    headroom_bytes=headroom_on(settings.headroom, each.name),
                    source=each.source,
                    shared=each.shared,
                    problem=each.problem,
                    utilisation=each.utilisation,
                    temperature_c=each.temperature_c,
                    power_w=each.power_w,
                    power_limit_w=each.power_limit_w,
                )
            )
        return found

    def notes(self) -> tuple[str, ...]:
        """What could not be found out about the devices at the last look, and why."""
        return self._watcher.last.notes

    def _running(self) -> list[Unit]:
        return [unit for unit in self._units() if unit.state in _RUNNING and unit.plan is not None]

    async def _look(self) -> Look:
        look = await self._watcher.look()
        units = [
            (unit.name.rpartition(".")[0], unit.running.pid, unit.state is State.READY, unit.plan)
            for unit in self._running()
            if unit.running is not None and unit.running.pid is not None and unit.plan is not None
        ]
        self._held = await asyncio.to_thread(_holdings, look, units)
        return look

    def _from_elsewhere(self, otherwise: Look) -> Look:
        with suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                return otherwise
        asking = self._look()
        try:
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result(_LOOK_WITHIN_S)
        except TimeoutError:
            return otherwise
        except RuntimeError:  # the loop has ended
            asking.close()
            return otherwise

    async def _measure(self, model: str, generation: int) -> None:
        try:
            await self._measured_now(model, generation)
        except Exception as error:  # noqa: BLE001 - a figure less must not end the server
            self._missed(f"{model} could not be measured", error, model)

    def _missed(self, what: str, error: Exception, model: str | None = None) -> None:
        """Says once what went wrong in here; it may come again with every look."""
        text = f"{what}: {Bug(f'{type(error).__name__}: {error}')}"
        if text not in self._said:
            self._said.add(text)
            self._events.post("bug", text, model=model)

    async def _measured_now(self, model: str, generation: int) -> None:
        await asyncio.sleep(_SETTLE_S)
        for _ in range(_TRIES):
            unit = self._there(model, generation)
            if unit is None or unit.plan is None or unit.log is None or not unit.plan.ours:
                return
            log = await asyncio.to_thread(_head, unit.log)
            if (report_vllm if unit.plan.engine == "vllm" else report_llamacpp).is_whole(log):
                break
            await asyncio.sleep(_SETTLE_S)
        else:
            return
        gpus = [each for each in unit.plan.devices if each != CPU]
        report = (
            report_vllm.read_report(log, gpus)
            if unit.plan.engine == "vllm"
            else report_llamacpp.read_report(log, names_of(unit.plan) or gpus)
        )
        await self._look()
        if self._there(model, generation) is not unit:
            return
        await self._remember(unit, report, self._held.by_unit.get(model, {}))

    async def _remember(self, unit: Unit, report: Report | None, held: Mapping[str, int]) -> None:
        plan = unit.plan
        assert plan is not None
        seconds = unit.load_ms / 1000 if unit.load_ms is not None else None
        key = await asyncio.to_thread(key_of, plan)
        known = await asyncio.to_thread(self._ledger.find, key)
        if report is None and known is None:
            return  # an engine that says nothing of its buffers: the prediction stands
        figures = figures_of(plan, report, held, load_s=seconds, at_wall_s=clock.wall())
        known = await asyncio.to_thread(self._ledger.remember, key, figures)
        predicted, footprint = plan.footprint, merged(plan.footprint, known)
        if unit.plan is plan:
            unit.plan = replace(plan, footprint=footprint)
        self._measured(plan.model, footprint, True)
        if predicted.origin != "measured" and _shown(predicted) != _shown(footprint):
            text = (
                f"{plan.unit} takes {show_bytes(footprint.total_bytes)}, "
                f"where {show_bytes(predicted.total_bytes)} were expected"
            )
            sizes = dict(footprint.bytes_by_device)
            self._events.post("unit.measured", text, model=plan.model, unit=plan.unit, bytes_by_device=sizes)

    async def _note_peaks(self) -> None:
        """Remembers of running units what they have come to hold beyond what was measured of their loads."""
        for unit in self._running():
            plan = unit.plan
            if plan is None or unit.state is not State.READY or plan.footprint.origin != "measured":
                continue
            held = self._held.by_unit.get(unit.name.rpartition(".")[0], {})
            peak = peak_of(plan.footprint, held, at_wall_s=clock.wall())
            if peak is None:
                continue
            key = await asyncio.to_thread(key_of, plan)
            known = await asyncio.to_thread(self._ledger.remember, key, peak)
            footprint = merged(plan.footprint, known)
            if unit.plan is plan:
                unit.plan = replace(plan, footprint=footprint)
            self._measured(plan.model, footprint, True)
            if _shown(footprint) == _shown(plan.footprint):
                continue
            grown, before = show_bytes(footprint.total_bytes), show_bytes(plan.footprint.total_bytes)
            text = f"{plan.unit} has come to take {grown}, where {before} were known"
            sizes = dict(footprint.bytes_by_device)
            self._events.post("unit.measured", text, model=plan.model, unit=plan.unit, bytes_by_device=sizes)

    def _there(self, model: str, generation: int) -> Unit | None:
        return next(
            (unit for unit in self._running() if unit.name == f"{model}.{generation}" and unit.running is not None),
            None,
        )


def _shown(footprint: Footprint) -> dict[str, str]:
    """As people are told of it: what does not differ there is no news."""
    return {device: show_bytes(size) for device, size in footprint.bytes_by_device.items()}


def _planned(units: Iterable[Unit]) -> dict[str, int]:
    """What running units took by their plans, by device."""
    found: dict[str, int] = {}
    for unit in units:
        if unit.plan is not None and unit.state is State.READY:
            for device, size in unit.plan.footprint.bytes_by_device.items():
                found[device] = found.get(device, 0) + size
    return found


def _holdings(look: Look, units: Iterable[tuple[str, int, bool, LaunchPlan]]) -> _Held:
    """What each unit holds. Where a driver does not tell, a unit that is ready holds what was planned."""
    found: dict[str, Mapping[str, int]] = {}
    for name, pid, ready, plan in units:
        sizes: dict[str, int] = {}
        private = private_bytes(pid)
        if private is not None:
            sizes[CPU] = private
        elif ready:
            sizes[CPU] = plan.footprint.bytes_by_device.get(CPU, 0)
        pids = family(pid)
        for device in look.devices:
            if device.name == CPU:
                continue
            told = [device.held[each] for each in pids if each in device.held]
            if told:
                sizes[device.name] = sum(told)
            elif ready and device.name in plan.footprint.bytes_by_device:
                sizes[device.name] = plan.footprint.bytes_by_device[device.name]
        found[name] = MappingProxyType(sizes)
    return _Held(MappingProxyType(found))


def listed() -> Sequence[Listed]:
    """The GPUs that the preferred llama.cpp finds, with their memory. Blocks for asking it, once."""
    for find in (executables.on_path, lambda: None):
        try:
            path = find()
            build = executables.embedded() if path is None else executables.llama_server(str(path))
            if found := executables.listing(build):
                return found
        except EngineError:
            continue
    return ()


def _head(log: Path) -> str:
    """The begin of the log, where the load is."""
    try:
        with log.open("rb") as file:
            return file.read(_HEAD_BYTES).decode(errors="replace")
    except OSError:
        return ""
