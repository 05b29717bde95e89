"""What the shots of growing levels come to, and where more at once bring no more. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WORTH: Final = 1.1
"""Twice as many at once must bring at least this many times the tokens; else it is saturated before."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One request. Times are seconds on one clock."""

    began: float
    ended: float
    first: float | None = None  # when its first token came
    tokens: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One level, once."""

    level: int
    shots: tuple[Shot, ...]

    @property
    def good(self) -> list[Shot]:
        return [shot for shot in self.shots if not shot.problem]

    @property
    def tokens_per_s(self) -> float:
        """All tokens by all of the time, of what went well."""
        good = self.good
        took = max((shot.ended for shot in good), default=0.0) - min((shot.began for shot in good), default=0.0)
        return sum(shot.tokens for shot in good) / took if took > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """One level: the median run's throughput, its spread, and times over all runs."""

    level: int
    tokens_per_s: float
    slowest_run: float
    fastest_run: float
    first_token_ms: float  # median
    first_token_p95_ms: float
    each_token_ms: float  # median of the shots' means, the first one not counted
    requests: int
    failed: int
    problem: str = ""  # of the first that failed


def point(runs: Sequence[Run]) -> Point:
    """Several runs of one level as one point. Raises ValueError without runs."""
    if not runs:
        raise ValueError("a point needs a run")
    speeds = sorted(run.tokens_per_s for run in runs)
    shots = [shot for run in runs for shot in run.shots]
    good = [shot for run in runs for shot in run.good]
    firsts = [(shot.first - shot.began) * 1000 for shot in good if shot.first is not None]
    each = [(shot.ended - shot.first) * 1000 / (shot.tokens - 1) for shot in good if shot.first and shot.tokens > 1]
    return Point(
        runs[0].level,
        quantile(speeds, 0.5),
        speeds[0],
        speeds[-1],
        quantile(firsts, 0.5),
        quantile(firsts, 0.95),
        quantile(each, 0.5),
        len(shots),
        len(shots) - len(good),
        next((shot.problem for shot in shots if shot.problem), ""),
    )


def saturates_at(points: Sequence[Point]) -> int | None:
    """The level from which on more at once bring hardly more tokens; None where they still do at the last."""
    for at, here in enumerate(points[:-1]):
        wide = math.log2(points[at + 1].level / here.level)
        if max(each.tokens_per_s for each in points[at + 1 :]) < here.tokens_per_s * WORTH ** max(1.0, wide):
            return here.level
    return None


def levels(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    found = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    return found if found[-1] == most else [*found, most]


def quantile(values: Sequence[float], part: float) -> float:
    """By linear interpolation; NaN of nothing."""
    if not values:
        return math.nan
    found = sorted(values)
    at = part * (len(found) - 1)
    low, high = math.floor(at), math.ceil(at)
    return found[low] + (found[high] - found[low]) * (at - low)
