"""The scheduler in virtual time on traces of real life, against two simple ones."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.bars import Group, write_bars
from bench.frame import ROOT, Figure, main, percentile, sized
from bench.virtual import GIB, Corral, Deciding, Fifo, Lru, Model, World

WHAT = (
    "The real `decide.step` in virtual time, against strict order of arrival (`fifo`) and serving whoever's model is "
    "there (`lru`); both evict the least recently used. Loads take 1 s and 0.5 s per GiB, stops 0.3 s, models have two "
    "slots. `alternating`: two clients that each ask two models in turn, of which one fits. `hog`: one client with 60 "
    "requests at a time beside four with one, on two such models; waits are those of the four. `contended`: eight "
    "clients on either of two such models, almost without a pause. `bursty`: bursts over 20 models of 2 to 14 GiB on "
    "two devices of 24 GiB; `crowded`: the same, with more bursts than the devices can serve in time. Waits are from "
    "asking to a free slot; utilisation is the share of time in which a device served somebody. `p95_vs_fifo` compares "
    "with the one that is fair, `worst_vs_lru` with the one that swaps least."
)
SCHEDULERS: dict[str, Callable[[World], Deciding]] = {"corral": Corral, "fifo": Fifo, "lru": Lru}
PLOT = ROOT / "docs" / "scheduling.svg"


@dataclass(frozen=True)
class Outcome:
    swaps: int
    p50_s: float
    p95_s: float
    worst_s: float
    utilisation: float  # percent
    took_s: float


def two() -> list[Model]:
    return [Model("a", "gpu0", 14 * GIB), Model("b", "gpu0", 12 * GIB)]


def client(
    world: World, chance: random.Random, models: Iterator[str], key: str, until_s: float, think_s: float, hold_s: float
) -> None:
    """One request after another, with pauses, until it is time to go."""

    def ask(now: float) -> None:
        if now < until_s:
            world.ask(next(models), hold_s * chance.uniform(0.5, 1.5), key, then=again)

    def again(now: float) -> None:
        at = now + think_s * chance.expovariate(1)
        world.at(at, lambda: ask(at))

    again(world.now)


def alternating(world: World, chance: random.Random, long_s: float) -> str:
    def turns(first: int) -> Iterator[str]:
        number = first
        while True:
            yield "ab"[number % 2]
            number += 1

    for number in range(2):
        client(world, chance, turns(number), f"c{number}", long_s, 2.0, 3.0)
    return ""


def hog(world: World, chance: random.Random, long_s: float) -> str:
    def only(name: str) -> Iterator[str]:
        while True:
            yield name

    for _ in range(60):
        client(world, chance, only("a"), "hog", long_s, 0.01, 3.0)
    for number in range(4):
        client(world, chance, only("aaab"[number]), f"polite{number}", long_s, 20.0, 3.0)
    return "polite"


def contended(world: World, chance: random.Random, long_s: float) -> str:
    def only(name: str) -> Iterator[str]:
        while True:
            yield name

    for number in range(16):
        client(world, chance, only("ab"[number % 2]), f"c{number}", long_s, 0.5, 2.0)
    return ""


def twenty() -> list[Model]:
    chance = random.Random(20)
    return [Model(f"m{n}", f"gpu{n % 2}", chance.randint(2, 14) * GIB) for n in range(20)]


def bursty(world: World, chance: random.Random, long_s: float, pause_s: float = 9.0) -> str:
    names = [model.name for model in world.models.values()]
    weights = [1 / (rank + 1) for rank in range(len(names))]  # a few are popular
    at = 0.0
    while at < long_s:
        name = chance.choices(names, weights)[0]
        for _ in range(min(40, int(chance.paretovariate(1.1)))):
            moment, hold_s = at + chance.uniform(0, 5), chance.lognormvariate(0.7, 0.6)
            world.at(moment, lambda name=name, hold_s=hold_s: world.ask(name, hold_s))  # type: ignore[misc]
        at += chance.expovariate(1 / pause_s)
    return ""


def crowded(world: World, chance: random.Random, long_s: float) -> str:
    return bursty(world, chance, long_s, pause_s=5.0)


TRACES = {
    "alternating": (two, {"gpu0": 24 * GIB}, alternating),
    "hog": (two, {"gpu0": 24 * GIB}, hog),
    "contended": (two, {"gpu0": 24 * GIB}, contended),
    "bursty": (twenty, {"gpu0": 24 * GIB, "gpu1": 24 * GIB}, bursty),
    "crowded": (twenty, {"gpu0": 24 * GIB, "gpu1": 24 * GIB}, crowded),
}


def simulate(trace: str, scheduler: str, long_s: float, seed: int = 1) -> Outcome:
    """One trace under one scheduler, to the last answer."""
    models, memory, fill = TRACES[trace]
    world = World(models(), dict(memory), SCHEDULERS[scheduler])
    whose = fill(world, random.Random(seed), long_s)
    world.run()
    assert all(request.began_at >= 0 for request in world.requests), "everybody is answered"
    waits = [request.wait_s for request in world.requests if request.key.startswith(whose)]
    busy = 100 * sum(world.busy_s.values()) / (world.now * len(memory))
    return Outcome(world.starts, percentile(waits, 50), percentile(waits, 95), max(waits), busy, world.now)


def measure(quick: bool) -> list[Figure]:
    long_s = float(sized(quick, 3600, 600, 120))
    found = {(t, s): simulate(t, s, long_s) for t in TRACES for s in SCHEDULERS}
    print(shown(found))
    if "--record" in sys.argv:
        draw(found)
    figures = []
    for trace in TRACES:
        ours = found[trace, "corral"]
        figures.append(Figure(f"{trace}_p95_vs_fifo", ours.p95_s / found[trace, "fifo"].p95_s, "≤ 1.05"))
        figures.append(Figure(f"{trace}_worst_vs_lru", ours.worst_s / found[trace, "lru"].worst_s, "≤ 1.05"))
        figures += [Figure(f"{trace}_{s}_p50_s", found[trace, s].p50_s) for s in SCHEDULERS]
        figures += [Figure(f"{trace}_{s}_p95_s", found[trace, s].p95_s) for s in SCHEDULERS]
        figures += [Figure(f"{trace}_{s}_worst_s", found[trace, s].worst_s) for s in SCHEDULERS]
        figures += [Figure(f"{trace}_{s}_swaps", found[trace, s].swaps) for s in SCHEDULERS]
        figures += [Figure(f"{trace}_{s}_utilisation", found[trace, s].utilisation, note="percent") for s in SCHEDULERS]
    return figures


def shown(found: dict[tuple[str, str], Outcome]) -> str:
    rows = [
        f"{'trace':12} {'scheduler':9} {'loads':>6} {'p50 s':>8} {'p95 s':>8} {'worst s':>8} {'used %':>7} {'end s':>8}"
    ]
    for (trace, name), o in found.items():
        rows.append(
            f"{trace:12} {name:9} {o.swaps:6} {o.p50_s:8.1f} {o.p95_s:8.1f} {o.worst_s:8.1f} {o.utilisation:7.1f} "
            f"{o.took_s:8.0f}"
        )
    return "\n".join(rows) + "\n"


def draw(found: dict[tuple[str, str], Outcome]) -> None:
    waits = Group("p95 of the wait, s", {t: {s: found[t, s].p95_s for s in SCHEDULERS} for t in TRACES}, log=True)
    loads = Group("loads", {t: {s: float(found[t, s].swaps) for s in SCHEDULERS} for t in TRACES}, log=True)
    used = Group("utilisation, %", {t: {s: found[t, s].utilisation for s in SCHEDULERS} for t in TRACES})
    write_bars(PLOT, [waits, loads, used])


if __name__ == "__main__":
    sys.exit(main("scheduler_sim", WHAT, measure))
