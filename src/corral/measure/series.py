"""Loads of several targets in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.lazy_dataclass import dataclass
from corral.measure.curve import Run
from corral.measure.load import run
from corral.measure.target import Target
from corral.measure.work import Work

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """So many at once, or so many a second with at most `at_once` open (0: any number)."""

    at_once: int
    rate: float | None = None

    def requests(self, each: int, seconds: float) -> int:
        """`each` for each line, or what comes in `seconds`."""
        return self.at_once * each if self.rate is None else max(2, round(self.rate * seconds))

    def __str__(self) -> str:
        return f"{self.at_once} at once" if self.rate is None else f"{self.rate:g} a second"


async def series(
    targets: Sequence[Target],
    works: Sequence[Work],
    loads: Sequence[Load],
    *,
    runs: int,
    each: int,
    seconds: float = 10.0,
    tell: Tell = lambda text: None,
) -> dict[str, list[list[Run]]]:
    """Every load of every target `runs` times: by target's name, for each load its runs.

    Each target gets prompts of its own in each run: two of them may be one engine, reached in two ways.
    """
    found: dict[str, list[list[Run]]] = {target.name: [] for target in targets}
    for target, work in zip(targets, works, strict=True):
        await run(target.address, work, 1, 1, seed="warm")  # what only a first request costs
    for load in loads:
        made: dict[str, list[Run]] = {target.name: [] for target in targets}
        for number in range(runs):
            for target, work in zip(targets, works, strict=True):
                seed = f"{number} {target.name}"
                count = load.requests(each, seconds)
                made[target.name].append(
                    await run(target.address, work, load.at_once, count, seed=seed, rate=load.rate)
                )
        for name, done in made.items():
            found[name].append(done)
        tell(f"{load}: " + ", ".join(f"{name} {_words(done)}" for name, done in made.items()))
    return found


def _words(done: Sequence[Run]) -> str:
    speeds = sorted(each.tokens_per_s for each in done)
    failed = sum(len(each.shots) - len(each.good) for each in done)
    return f"{speeds[len(speeds) // 2]:.0f} tokens/s" + (f" ({failed} failed)" if failed else "")
