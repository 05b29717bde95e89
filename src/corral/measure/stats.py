"""Sums over values: quantiles, means, arrivals, and whether two sets of runs differ by more than noise. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from corral.lazy_dataclass import dataclass

APART: Final = 0.5
"""Two sets of runs differ when the gap between their ranges is more than this part of the wider range: of three normal
runs against three of the same kind, 2.4 % do."""
LEAST: Final = 0.01
"""And when the medians differ by at least this part."""


def quantile(values: Sequence[float], part: float) -> float:
    """By linear interpolation, as numpy's `percentile` does; NaN of nothing."""
    if not values:
        return math.nan
    found = sorted(values)
    at = part * (len(found) - 1)
    low, high = math.floor(at), math.ceil(at)
    # Not low + difference·part: that may leave the range by a rounding.
    return found[low] if found[low] == found[high] else found[low] * (high - at) + found[high] * (at - low)


def median(values: Sequence[float]) -> float:
    return quantile(values, 0.5)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def arrivals(rate: float, draws: Sequence[float]) -> list[float]:
    """When each request is sent, in seconds from the start: a Poisson process of `rate` requests a second.

    `draws` are exponentially distributed with mean 1, one for each request. As in `vllm bench serve`, the times are
    stretched so that the last one is sent at exactly count / rate. Raises ValueError unless `rate` is positive.
    """
    if not rate > 0:
        raise ValueError(f"a rate must be positive, not {rate}")
    times: list[float] = []
    so_far = 0.0
    for draw in draws:
        so_far += draw
        times.append(so_far)
    whole = len(times) / rate
    return [each / so_far * whole for each in times] if so_far > 0 else [0.0] * len(times)


Verdict = Literal["same", "more", "less", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """From one set of runs to another. `verdict` is about the values, not about whether that is good."""

    before: float  # medians
    after: float
    verdict: Verdict

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else math.nan


def change(before: Sequence[float], after: Sequence[float]) -> Change:
    """Whether `after` differs from `before` by more than their runs do among each other.

    It does when no run of one lies within the range of the other's, the gap between both ranges is more than APART of
    the wider one, and the medians differ by LEAST. With fewer than two runs on a side nobody knows: "unknown".
    """
    one, other = median(before), median(after)
    if len(before) < 2 or len(after) < 2:
        return Change(one, other, "unknown")
    low, high = (before, after) if one <= other else (after, before)
    gap = min(high) - max(low)
    wider = max(max(before) - min(before), max(after) - min(after))
    far = abs(other - one) >= LEAST * abs(one)
    if gap > APART * wider and far:
        return Change(one, other, "more" if other > one else "less")
    return Change(one, other, "same")
