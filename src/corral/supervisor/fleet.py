"""All units of one daemon: made from the settings, found by name, carried from one configuration to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from corral.config.settings import ModelSettings, Settings
from corral.engines.adapter import Adapter
from corral.engines.placement import TOP
from corral.engines.plan import Endpoint, LaunchPlan
from corral.errors import CorralError, UnknownModel
from corral.runners.runner import Preview
from corral.runners.server import ServerRunning
from corral.supervisor import rest, served
from corral.supervisor.machine import State
from corral.supervisor.means import Listener, Means
from corral.supervisor.planning import plan_start
from corral.supervisor.unit import Unit


def units_in(settings: Settings) -> dict[str, ModelSettings]:
    """What every unit runs, by the unit's name: that of its model, and `<model>~2` and so on for its replicas, which no
    model can be called."""
    found = dict(settings.models)
    for name, model in settings.models.items():
        for number in range(2, model.replicas + 1):
            unit = f"{name}~{number}"
            found[unit] = replace(model, name=unit, aliases=(), port=None, preload=False, pin=False)
    return found


class Fleet:
    """Units by name. It is what the scheduler commands, and what tells it how that went."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._wanted = units_in(settings)
        self._means = means
        self._units = {name: Unit(model, settings.timeouts, means) for name, model in self._wanted.items()}

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units.values())

    def get(self, model: str) -> Unit | None:
        return self._units.get(model)

    def wanted(self, unit: str) -> ModelSettings | None:
        """What a unit of that name would run."""
        return self._wanted.get(unit)

    def of_model(self, model: str) -> list[Unit]:
        """The model's first unit and its replicas."""
        return [unit for name, unit in self._units.items() if name.partition("~")[0] == model]

    def plan(self, model: str) -> LaunchPlan | None:
        """By which its engine runs; None when none does."""
        unit = self._units.get(model)
        return unit.plan if unit is not None and unit.running is not None else None

    def degraded(self, model: str) -> str:
        """What its engine does without, in words; empty for nothing."""
        return plan.degraded if (plan := self.plan(model)) is not None else ""

    def live_logs(self) -> list[Path]:
        """The log files that engines write to now."""
        return [unit.log for unit in self._units.values() if unit.log is not None and unit.running is not None]

    def configure(self, settings: Settings) -> None:
        """Takes up new settings. A unit whose model is gone stays until its process is gone too."""
        self._wanted = units_in(settings)
        for name, model in self._wanted.items():
            if name not in self._units:
                self._units[name] = Unit(model, settings.timeouts, self._means)
        for unit in self._units.values():
            unit.timeouts = settings.timeouts
        self._drop_removed()

    async def start(self, model: str, generation: int) -> None:
        self._drop_removed()
        if (settings := self._wanted.get(model)) is None:  # removed since the start was decided
            gone = UnknownModel(f"{model} was removed from the configuration", model=model)
            self._means.listener.unit_ended(model, generation, gone, 0.0)
            return
        await self._units[model].start(settings, generation)

    async def preview(self, model: ModelSettings, adapter: Adapter) -> tuple[LaunchPlan, Preview]:
        """What the next start of `model` would run, planned by `adapter`. Raises what planning raises."""
        unit = self._units.get(model.name)
        step, generation = (TOP, 1) if unit is None else (unit.fallback.step, unit.generation + 1)
        plan = await asyncio.to_thread(plan_start, self._means.paths, adapter, model, generation, step)
        return plan, await asyncio.to_thread(self._means.runners[plan.runner].preview, plan)

    def expect(self, model: str, generation: int) -> None:
        """Has prepared what may be, for a start that is likely and has to wait."""
        if (unit := self._units.get(model)) is not None and model in self._wanted:
            unit.expect(self._wanted[model], generation)

    async def check(self, model: str, generation: int) -> bool:
        """See `scheduler.commanded.Units.check`."""
        unit, settings = self._units.get(model), self._wanted.get(model)
        if unit is None or settings is None:
            await self.start(model, generation)  # which tells that it was removed
            return False
        return await unit.check(settings, generation)

    def forgo(self, model: str) -> None:
        """Nobody waits for that start any more."""
        if (unit := self._units.get(model)) is not None:
            unit.forgo()

    def foretell(self, unit: str) -> None:
        """Finds out beside everything else what a start of `unit` would take now, and tells `Means.planned`."""
        if (settings := self._wanted.get(unit)) is not None:
            self._means.spawn(self._foretell(settings), name=f"foretell {unit}")

    async def _foretell(self, settings: ModelSettings) -> None:
        try:
            found = await asyncio.to_thread(self._means.adapters[settings.engine].footprint, settings)
        except (CorralError, OSError):
            return  # its start will say what is wrong
        except Exception as error:  # noqa: BLE001 - one odd file must not end the server
            text = f"what {settings.name} will take could not be foretold: {type(error).__name__}: {error}"
            self._means.events.post("bug", text, model=settings.name)
            return
        self._means.planned(settings.name, found)

    async def stop(self, model: str, generation: int, why: str) -> None:
        if (unit := self._units.get(model)) is not None and unit.generation == generation:
            await unit.stop(why)
        self._drop_removed()

    async def sleep(self, model: str, generation: int, why: str) -> None:
        if (unit := self._units.get(model)) is not None and unit.generation == generation:
            await rest.sleep(unit, why)
        self._drop_removed()

    async def wake(self, model: str, generation: int) -> None:
        if (unit := self._units.get(model)) is not None and unit.generation == generation:
            await rest.wake(unit)

    def drain(self, model: str, generation: int, why: str) -> None:
        if (unit := self._units.get(model)) is not None and unit.generation == generation:
            unit.drain(why)

    def doubt(self, model: str, generation: int) -> None:
        """See `scheduler.commanded.Units.doubt`. The end of an engine of ours is told at once by whoever runs it."""
        unit = self._units.get(model)
        if unit is not None and unit.generation == generation and isinstance(unit.running, ServerRunning) and unit.plan:
            self._means.spawn(served.doubted(unit.plan, unit.running), name=f"doubt {unit.name}")

    def ails(self, model: str, generation: int, said: str) -> str | None:
        """Why that unit must be stopped, since it says itself that it has no memory or no GPU left; None where that is
        known already."""
        return unit.ails(generation, said) if (unit := self._units.get(model)) is not None else None

    async def blameless(self, model: str, generation: int, within_s: float) -> bool:
        """Whether that process ended for a reason that has nothing to do with its requests, or lives. Waits."""
        return (unit := self._units.get(model)) is not None and await unit.blameless(generation, within_s)

    async def mended(self, model: str) -> bool:
        """Whether any of the model's units that failed has other files now."""
        failed = [unit for unit in self.of_model(model) if unit.state in (State.BACKOFF, State.FAILED)]
        return any([await asyncio.to_thread(unit.mended) for unit in failed])

    def endpoint(self, model: str) -> tuple[str, Endpoint]:
        unit = self._units[model]
        return unit.name, unit.endpoint

    def _drop_removed(self) -> None:
        gone = (State.STOPPED, State.BACKOFF, State.FAILED)
        for name, unit in list(self._units.items()):
            if name not in self._wanted and unit.state in gone:
                unit.forgo()
                del self._units[name]


class Relay(Listener):
    """Passes what units report on to a listener that is made after them.

    `on_ended` hears of each end before it, `on_ready` of each success after it.
    """

    def __init__(
        self,
        on_ended: Callable[[str], None] = lambda model: None,
        on_ready: Callable[[str, int], None] = lambda model, generation: None,
    ) -> None:
        self.to: Listener | None = None
        self._on_ended, self._on_ready = on_ended, on_ready

    def unit_ready(self, model: str, generation: int) -> None:
        if self.to is not None:
            self.to.unit_ready(model, generation)
        self._on_ready(model, generation)

    def unit_slept(self, model: str, generation: int) -> None:
        if self.to is not None:
            self.to.unit_slept(model, generation)

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self._on_ended(model)
        if self.to is not None:
            self.to.unit_ended(model, generation, error, retry_at)
