"""`Sums`: counters and histograms by their labels, which only grow. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from corral.metrics.catalogue import METRICS

Labels = tuple[str, ...]
"""The values of a metric's labels, in the catalogue's order."""

OTHER = "other"
"""What stands for all values beyond those that are told apart."""

_BUCKETS = {metric.name: metric.buckets for metric in METRICS}


class Histogram:
    """How many values were at most so large. `counts` has one more than the bounds: what is beyond them all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, value: float, times: int = 1) -> None:
        """Counts `value`, `times` over."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Sums:
    """By metric, then by labels."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Histogram]] = {}

    def count(self, metric: str, labels: Labels = (), by: float = 1) -> None:
        series = self.counters.get(metric)
        if series is None:
            series = self.counters[metric] = {}
        series[labels] = series.get(labels, 0) + by

    def observe(self, metric: str, labels: Labels, value: float, times: int = 1) -> None:
        series = self.histograms.get(metric)
        if series is None:
            series = self.histograms[metric] = {}
        found = series.get(labels)
        if found is None:
            found = series[labels] = Histogram(_BUCKETS[metric])
        found.add(value, times)


class Few:
    """Lets the first `most` different values pass; those that come later are `other`."""

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._most, self._seen = most, set(known)

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(value)
        return value
