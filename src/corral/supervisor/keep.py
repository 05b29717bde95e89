"""Starting again, unasked, what should always be there: a pinned or preloaded model whose engine ended by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from corral import clock
from corral.config.settings import ModelSettings
from corral.errors import CorralError, StartFailed
from corral.events import EventLog
from corral.supervisor.machine import State
from corral.supervisor.means import Listener, Spawn
from corral.supervisor.unit import Unit

HOPELESS = ("flag", "address", "library", "architecture", "file", "cpu")
"""Reasons that are there at the next try too: whoever asks for the model is told, and nobody tries unasked."""


class Keeper(Listener):
    """Passes on what units report, and asks for those that are kept as soon as they may be tried again.

    It gives up when the unit does: what failed too often waits for somebody who wants it.
    """

    def __init__(
        self,
        to: Listener,
        unit: Callable[[str], Unit | None],
        ask: Callable[[str], Awaitable[None]],
        *,
        events: EventLog,
        spawn: Spawn,
    ) -> None:
        """`ask` returns once the model is ready; what it raises has been told to everybody already."""
        self._to, self._unit, self._ask, self._events, self._spawn = to, unit, ask, events, spawn
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def unit_ready(self, model: str, generation: int) -> None:
        self._forget(model)
        self._to.unit_ready(model, generation)

    def unit_slept(self, model: str, generation: int) -> None:
        self._to.unit_slept(model, generation)

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self._to.unit_ended(model, generation, error, retry_at)
        self._forget(model)
        unit = self._unit(model)
        if unit is None or unit.state is not State.BACKOFF or not why_kept(unit.model) or hopeless(error):
            return
        pause_s = max(0.0, retry_at - clock.monotonic())
        self._timers[model] = asyncio.get_running_loop().call_later(pause_s, self._again, model)

    def close(self) -> None:
        """Nothing is asked for any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _forget(self, model: str) -> None:
        if (timer := self._timers.pop(model, None)) is not None:
            timer.cancel()

    def _again(self, model: str) -> None:
        self._timers.pop(model, None)
        unit = self._unit(model)
        if unit is None or unit.state is not State.BACKOFF:  # stopped, or started for somebody, meanwhile
            return
        why = why_kept(unit.model)
        self._events.post("unit.wanted", f"{model} is started again: it is {why}", model=model, why=why)
        self._spawn(self._asked(model), name=f"keep {model}")

    async def _asked(self, model: str) -> None:
        try:
            await self._ask(model)
        except CorralError:
            return


def why_kept(model: ModelSettings) -> str:
    """Why it should be there always; empty when it need not."""
    return "pinned" if model.pin else "preloaded" if model.preload else ""


def hopeless(error: CorralError | None) -> bool:
    """Whether another try would end as this one did. A crash is worth a try."""
    if error is None:
        return False
    return not isinstance(error, StartFailed) or error.details.get("kind") in HOPELESS
