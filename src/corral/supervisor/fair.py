"""`Fair`: has requests read that their engine passes over, by giving it nothing new until it has. See `fairness`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from corral import clock
from corral.engines.plan import LaunchPlan
from corral.events import EventLog
from corral.supervisor import looks
from corral.supervisor.fairness import MOST_S, late, passed_over, still
from corral.supervisor.machine import State
from corral.supervisor.pulse import Pulses
from corral.supervisor.unit import Unit
from corral.units import show_duration

Pause = Callable[[str, int, bool], None]
"""Whether the unit of that name and generation is to get no new work now."""

_APART_S: Final = 0.25
"""Between two readings of an engine's slots that show what it passes over; and how long each may take."""
_AGAIN_S: Final = 0.05
"""Between readings until it has been read."""


class Fair:
    """For llama.cpp's engines, which tell of their slots."""

    def __init__(self, pulses: Pulses, pause: Pause, events: EventLog) -> None:
        self._pulses, self._pause, self._events = pulses, pause, events
        self._helping: set[str] = set()

    def wanted(self, unit: Unit) -> bool:
        """Whether `help` is worth a try. Cheap."""
        plan = unit.plan
        if plan is None or plan.probe.counters != "/slots" or unit.name in self._helping:
            return False
        traffic = self._pulses.of(unit.name)
        return unit.state is State.READY and late(traffic.running, traffic.answered, plan.slots)

    async def help(self, unit: Unit) -> None:
        """Looks whether the engine passes somebody over, and sees to it that it stops, for as long as it is wanted."""
        name, plan = unit.name, unit.plan
        assert plan is not None
        self._helping.add(name)
        try:
            while await self._helped(unit, name, plan):
                pass
        finally:
            self._helping.discard(name)

    async def _helped(self, unit: Unit, name: str, plan: LaunchPlan) -> bool:
        """Whether somebody had to be helped: there may be more."""
        traffic = self._pulses.of(name)
        before, answered = await looks.slots(plan.endpoint, _APART_S), traffic.answered
        await asyncio.sleep(_APART_S)
        if traffic.answered - answered < plan.slots or unit.name != name or unit.state is not State.READY:
            return False  # it is slow with all of them, or gone
        tasks = passed_over(before, await looks.slots(plan.endpoint, _APART_S))
        if not tasks or unit.name != name:
            return False
        began, model, generation = clock.monotonic(), unit.model.name, unit.generation
        self._pause(model, generation, True)
        try:
            while unit.name == name and unit.state is State.READY and clock.monotonic() - began < MOST_S:
                await asyncio.sleep(_AGAIN_S)
                if not still(tasks, await looks.slots(plan.endpoint, _APART_S)):
                    break
        finally:
            self._pause(model, generation, False)
        who = "a request" if len(tasks) == 1 else f"{len(tasks)} requests"
        took = show_duration(clock.monotonic() - began)
        text = f"{name} passed {who} over for others that came later; it got nothing new for {took}, until it read on"
        self._events.post("unit.unfair", text, model=unit.model.name, unit=name, requests=len(tasks))
        return True
