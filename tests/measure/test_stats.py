"""Quantiles, arrivals, and what counts as a change, for all values."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.measure.stats import APART, arrivals, change, mean, median, quantile

values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30)
runs = st.lists(st.floats(0.001, 1e6), min_size=2, max_size=6)


@given(values, st.floats(0, 1))
def test_quantiles_are_numpys(found: list[float], part: float) -> None:
    """`vllm bench serve` takes numpy's percentiles: these are the same, and within the values."""
    ours = quantile(found, part)
    assert min(found) <= ours <= max(found)
    assert ours == pytest.approx(float(np.percentile(found, part * 100)), rel=1e-6, abs=1e-3)


def test_of_nothing_there_is_no_number() -> None:
    """NaN, not an error and not zero."""
    assert math.isnan(quantile([], 0.5)) and math.isnan(mean([])) and median([1.0, 3.0]) == 2.0


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 20), min_size=1, max_size=50))
def test_arrivals_end_when_the_rate_says(rate: float, draws: list[float]) -> None:
    """They never go back, and the last one is sent at count / rate, whatever chance said; all at once if it said 0."""
    times = arrivals(rate, draws)
    assert len(times) == len(draws) and times == sorted(times) and times[0] >= 0
    assert times[-1] == pytest.approx(len(draws) / rate if sum(draws) > 0 else 0.0)


def test_arrivals_are_poissons() -> None:
    """Gaps of an exponential distribution: their mean is their deviation, and 37 % of them are longer than it."""
    chance = random.Random(7)
    times = arrivals(50.0, [chance.expovariate(1.0) for _ in range(20_000)])
    gaps = np.diff([0.0, *times])
    assert gaps.mean() == pytest.approx(0.02) and gaps.std() == pytest.approx(0.02, rel=0.03)
    assert (gaps > 0.02).mean() == pytest.approx(math.exp(-1), abs=0.02)
    with pytest.raises(ValueError, match="positive"):
        arrivals(0.0, [1.0])


@given(runs, runs)
def test_a_change_is_seen_from_both_sides(before: list[float], after: list[float]) -> None:
    """What is more one way is less the other way, if a hundredth of the one is one of the other; never with ranges that
    touch."""
    one, other = change(before, after), change(after, before)
    if one.verdict == "more" and other.verdict != "same":
        assert other.verdict == "less" and min(after) > max(before)
    if max(min(before), min(after)) <= min(max(before), max(after)):
        assert one.verdict == other.verdict == "same"
    assert change(before, before).verdict == "same"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([10, 11, 12], [20, 21, 22], "more"),
        ([20, 21, 22], [10, 11, 12], "less"),
        ([10, 11, 12], [12.9, 13.5, 14], "same"),  # apart, but by less than half of the range
        ([10, 11, 12], [13.1, 13.5, 14], "more"),
        ([100, 100, 100], [100.5, 100.5, 100.5], "same"),  # less than a hundredth
        ([0, 0, 0], [1, 1, 1], "more"),
        ([10], [20, 21, 22], "unknown"),
    ],
)
def test_changes(before: list[float], after: list[float], verdict: str) -> None:
    """Beyond noise is: apart by more than half of what the runs differ among each other."""
    assert change(before, after).verdict == verdict


def test_equal_runs_seldom_differ() -> None:
    """The documented share: of three runs against three of the same kind, about 1 in 40."""
    chance = random.Random(1)
    draws = [[chance.gauss(100, 5) for _ in range(6)] for _ in range(10_000)]
    wrong = sum(change(six[:3], six[3:]).verdict != "same" for six in draws)
    assert APART == 0.5 and 0.015 < wrong / 10_000 < 0.03
