"""Back on the GPU: units that do without one that was lost are started anew once it is there and they are idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from corral import clock
from corral.engines.adapter import Adapter
from corral.engines.executables import environment_of
from corral.events import EventLog
from corral.hardware.vulkan import signs
from corral.supervisor.machine import State
from corral.supervisor.unit import Unit

EVERY_S: Final = 5.0
"""How often it is seen whose time to look has come (see `fallback.LOOK_AFTER_S`), and whether a device node or a
driver's manifest has come or gone meanwhile, in which case it has."""


class GpuReturn:
    """Looks for lost GPUs. Owned by the event loop; `run` is a task for ever.

    `is_busy` says whether a unit is in use, `restart` ends it and, where it is kept, has it started again.
    """

    def __init__(
        self,
        units: Callable[[], Iterable[Unit]],
        adapters: Mapping[str, Adapter],
        events: EventLog,
        *,
        is_busy: Callable[[str], bool],
        restart: Callable[[Unit, str], None],
    ) -> None:
        self._units, self._adapters, self._events = units, adapters, events
        self._is_busy, self._restart = is_busy, restart
        self._signs: dict[str, object] = {}  # by the unit that waits for a GPU: what there was when it was last seen

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self) -> None:
        """One round."""
        now = clock.monotonic()
        waiting = [each for each in self._units() if each.fallback.look_at is not None]
        self._signs = {each.name: self._signs[each.name] for each in waiting if each.name in self._signs}
        for unit in waiting:
            at = unit.fallback.look_at
            if at is None or (not await self._changed(unit) and at > now):
                continue
            if self._is_busy(unit.model.name) or unit.state in (State.STARTING, State.LOADING):
                continue  # it would not be stopped for it anyway
            if not await asyncio.to_thread(self._has_gpus, unit):
                unit.fallback.still_gone(clock.monotonic())
                self._signs.pop(unit.name, None)
                continue
            if self._is_busy(unit.model.name) or unit.state in (State.STARTING, State.LOADING):
                continue
            unit.fallback.gpu_back()
            unit.forgo()
            name = unit.model.name
            self._events.post("unit.gpu_back", f"{name}: a GPU is there again", model=name, unit=unit.name)
            if unit.state is State.READY:
                self._restart(unit, "a GPU is there again")

    async def _changed(self, unit: Unit) -> bool:
        """Whether a GPU or a driver may have come since it was last looked. Nothing is started for it."""
        found = await asyncio.to_thread(signs, environment_of(unit.model.env))
        return self._signs.setdefault(unit.name, found) != found

    def _has_gpus(self, unit: Unit) -> bool:
        try:
            return self._adapters[unit.model.engine].has_gpus(unit.model)
        except Exception:  # noqa: BLE001 - whoever asks for the model hears why; nothing here may end the server
            return False
