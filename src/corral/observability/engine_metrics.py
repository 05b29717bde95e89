"""`EngineMetrics`: what engines say of themselves, fetched beside everything else for the next who scrapes.

A scrape never waits for an engine: llama.cpp answers between two steps of its work, and one that hangs never does. It
shows what each engine said last, and begins to ask anew shortly before the next scrape is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from corral import clock
from corral.engines.plan import LaunchPlan
from corral.lazy_dataclass import dataclass
from corral.metrics.engines import Family, Reader
from corral.supervisor.looks import ask
from corral.supervisor.machine import State
from corral.supervisor.means import Spawn
from corral.supervisor.unit import Unit
from corral.tasks import unhurried

WITHIN_S: Final = 2.0
"""How long an engine may take to answer. One question at a time is asked of each."""
OLD_S: Final = 120.0
"""What an engine said so long ago is shown no more."""
FIRST_S: Final = 0.25
"""How long the first scrape of all waits for engines that nobody has asked yet."""
_AHEAD_S: Final = 0.5
_WATCHED_S: Final = 150.0
_APART_S: Final = 1.0
_LINES: Final = 100


@dataclass(frozen=True, slots=True)
class Said:
    """What one process said, and when."""

    process: str
    at: float
    families: tuple[Family, ...]


class EngineMetrics:
    """One event loop. Only engines that are ready are asked, at their own address: nothing is woken, nothing counts as
    use. `failed` hears of each model whose engine did not answer as it should."""

    def __init__(self, units: Callable[[], Iterable[Unit]], spawn: Spawn, failed: Callable[[str], None]) -> None:
        self._units, self._spawn, self._failed = units, spawn, failed
        self._said: dict[str, Said] = {}  # by unit
        self._asking: dict[str, asyncio.Task[None]] = {}  # by process
        self._scraped_at = float("-inf")
        self._due: float | None = None

    async def scraped(self) -> None:
        """Somebody scrapes now. Waits only when nobody did for long, a moment, for what engines say."""
        now = clock.monotonic()
        between_s, self._scraped_at = now - self._scraped_at, now
        if between_s < _WATCHED_S:
            if self._due is not None and now >= self._due:
                self._due = None
                self._ask_all()
            if self._due is None:  # else one that scrapes every second would put it off for ever
                self._due = now + max(_APART_S, between_s - _AHEAD_S)
            return
        self._due = None
        if asking := self._ask_all():
            await asyncio.wait(asking, timeout=FIRST_S)

    def tick(self) -> None:
        """To be called every second: asks what is due, and engines that came since the last scrape."""
        now = clock.monotonic()
        if now - self._scraped_at > _WATCHED_S:
            self._said.clear()
        elif self._due is not None and now >= self._due:
            self._due = None
            self._ask_all()
        else:
            self._ask_all(only_new=True)

    def latest(self) -> list[tuple[str, str, tuple[Family, ...]]]:
        """Model, unit and families of every engine that is ready and has said something."""
        now, found = clock.monotonic(), []
        for unit in self._units():
            said = self._said.get(name := unit.model.name)
            if said is not None and said.process == unit.name and _asked(unit) and now - said.at < OLD_S:
                found.append((name.partition("~")[0], name, said.families))
        return found

    def _ask_all(self, only_new: bool = False) -> list[asyncio.Task[None]]:
        """Begins to ask, and returns what is being asked now."""
        begun = []
        for unit in self._units():
            if not _asked(unit) or unit.plan is None or unit.name in self._asking:
                continue
            said = self._said.get(unit.model.name)
            if only_new and said is not None and said.process == unit.name:
                continue
            task = self._spawn(self._ask(unit, unit.name, unit.plan), name=f"metrics of {unit.name}")
            self._asking[unit.name] = task
            begun.append(task)
        return begun

    async def _ask(self, unit: Unit, process: str, plan: LaunchPlan) -> None:
        try:
            found = await ask(plan.endpoint, path_of(plan), within_s=WITHIN_S)
            at, families = clock.monotonic(), tuple[Family, ...]()
            if found is not None and found[0] == 200:
                families = await _read(found[1])
            elif unit.name == process and _asked(unit):  # else it was about to end
                self._failed(unit.model.name)
            before = self._said.get(unit.model.name)
            if not families and before is not None and before.process == process:
                return  # what it said before is shown until it is old
            self._said[unit.model.name] = Said(process, at, families)
        finally:
            self._asking.pop(process, None)


def path_of(plan: LaunchPlan) -> str:
    """Where an engine that runs by `plan` answers with its metrics; empty where it has none."""
    return "/metrics" if "--metrics" in plan.argv or plan.probe.counters == "/metrics" else ""


def _asked(unit: Unit) -> bool:
    return unit.state in (State.READY, State.DRAINING) and unit.plan is not None and bool(path_of(unit.plan))


async def _read(text: bytes) -> tuple[Family, ...]:
    reader, lines = Reader(), text.decode("utf-8", "replace").splitlines()

    def some() -> Iterator[int]:
        for at in range(0, len(lines), _LINES):
            reader.take(lines[at : at + _LINES])
            yield at

    await unhurried(some())
    return tuple(reader.families())
