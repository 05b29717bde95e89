"""How long a request waits for a model that is not loaded, or that another one has to make room for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from corral.api import EventInfo, UnitInfo
from corral.measure.answer import Shot
from corral.measure.figures import COLD, SWAP, Figure, figure
from corral.measure.target import Target
from corral.measure.wire import shoot, tls_of
from corral.measure.work import Work


class Control(Protocol):
    """What is asked of the server beside requests."""

    def stop(self, model: str) -> object: ...
    def start(self, model: str) -> object: ...
    def units(self) -> list[UnitInfo]: ...
    def events(self, since: int = 0, model: str | None = None) -> list[EventInfo]: ...


async def first_token(target: Target) -> Shot:
    """One short chat."""
    work = Work(target.model, words=4, tokens=1, fields=target.fields)
    return await shoot(target.address, tls_of(target.address), work.path, work.body(random.Random("cold")))


def cold_starts(control: Control, target: Target, ask: Callable[[], Shot], runs: int) -> tuple[list[Figure], list[str]]:
    """The model is stopped, then asked, `runs` times. Its file is in the page cache, from the second on at least."""
    shots, loads = [], []
    for _ in range(runs):
        control.stop(target.model)
        shots.append(ask())
        loads.append(_load_ms(control, target.model))
    return _figures(target.name, COLD, shots, {"cold_first_token_ms": _waits(shots), "load_ms": loads})


def swaps(
    control: Control, target: Target, other: str, ask: Callable[[], Shot], runs: int
) -> tuple[list[Figure], list[str]]:
    """`other` is started, then the model is asked. Where both fit beside each other nothing is swapped, and said so."""
    shots, loads, rooms = [], [], []
    for _ in range(runs):
        control.stop(target.model)
        control.start(other)
        seen = max((each.seq for each in control.events()), default=0)
        shots.append(ask())
        loads.append(_load_ms(control, target.model))
        rooms.append(room_ms(control.events(seen, other)))
    if not any(shot.problem for shot in shots) and not any(rooms):
        return [], [f"{other} and {target.model} fit beside each other: nothing was swapped"]
    waits = {"swap_first_token_ms": _waits(shots), "load_ms": loads, "swap_ms": rooms}
    return _figures(target.name, SWAP, shots, waits)


def room_ms(events: Sequence[EventInfo]) -> float | None:
    """How long a model took to go, by its own events; None where it stayed. The answer's head does not tell it of loads
    that take long, whose stream has begun before they are over."""
    states = [(each.wall_s, str(each.data.get("after"))) for each in events if each.kind == "unit.state"]
    began = next((wall for wall, after in states if after in ("draining", "stopping")), None)
    ended = next((wall for wall, after in states if after == "stopped"), None)
    return None if began is None or ended is None else max(0.0, ended - began) * 1000


def _load_ms(control: Control, model: str) -> float | None:
    return next((unit.load_ms for unit in control.units() if unit.model == model and unit.state == "ready"), None)


def _waits(shots: Sequence[Shot]) -> list[float | None]:
    return [None if shot.problem or shot.ttft is None else shot.ttft * 1000 for shot in shots]


def _figures(
    subject: str, part: str, shots: Sequence[Shot], values: dict[str, list[float | None]]
) -> tuple[list[Figure], list[str]]:
    made = [figure(subject, part, None, name, found) for name, found in values.items()]
    notes = [f"{part}: {shot.problem}" for shot in shots if shot.problem][:1]
    return [each for each in made if each.values], notes
