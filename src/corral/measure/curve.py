"""What the shots of growing levels come to, and where more at once bring no more. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.measure.answer import Shot
from corral.measure.stats import median, quantile

WORTH: Final = 1.1
"""Twice as many at once must bring at least this many times the tokens; else it is saturated before."""

BUSY: Final = 0.9
"""A generator that takes this much of a processor had no time left."""
LATE_MS: Final = 2.0
LATE_PART: Final = 0.25
"""A generator that is late by more than both, the second of the time between two tokens, shows in the figures."""


@dataclass(frozen=True, slots=True)
class Late:
    """How late the generator itself was while a run went on."""

    p50_ms: float
    p95_ms: float
    most_ms: float
    busy: float  # the part of one processor that it took
    sent_p95_ms: float | None = None  # how much later than planned requests were sent, where they were planned


@dataclass(frozen=True, slots=True)
class Run:
    """One level, once."""

    level: int
    shots: tuple[Shot, ...]
    rate: float | None = None  # requests a second that were planned, instead of so many at once
    late: Late | None = None

    @property
    def good(self) -> list[Shot]:
        return [shot for shot in self.shots if not shot.problem]

    @property
    def took(self) -> float:
        """From the first request to the last end, of those that failed too, as `vllm bench serve` has it."""
        return max((s.ended for s in self.shots), default=0.0) - min((s.began for s in self.shots), default=0.0)

    @property
    def tokens_per_s(self) -> float:
        """All tokens of what went well, by all of the time."""
        return sum(shot.tokens for shot in self.good) / self.took if self.took > 0 else 0.0

    @property
    def peak(self) -> int:
        """The most requests that were open at once."""
        turns = sorted(turn for shot in self.shots for turn in ((shot.began, 1), (shot.ended, -1)))
        most = open_now = 0
        for _, turn in turns:
            open_now += turn
            most = max(most, open_now)
        return most

    @property
    def limited(self) -> str:
        """Why the generator was what limited it, in words; "" where it was not."""
        if self.late is None:
            return ""
        gaps = [gap * 1000 for shot in self.good for gap in shot.gaps]
        if self.late.busy >= BUSY:
            return f"it took {self.late.busy:.0%} of a processor"
        if gaps and self.late.p95_ms > max(LATE_MS, LATE_PART * median(gaps)):
            return f"it was {self.late.p95_ms:.1f} ms late (p95), tokens come every {median(gaps):.1f} ms"
        return ""


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
    firsts = [shot.ttft * 1000 for shot in good if shot.ttft is not None]
    each = [shot.tpot * 1000 for shot in good if shot.tpot is not None]
    return Point(
        runs[0].level,
        median(speeds),
        speeds[0],
        speeds[-1],
        median(firsts),
        quantile(firsts, 0.95),
        median(each),
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
