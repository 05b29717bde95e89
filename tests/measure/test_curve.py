"""What shots come to, and where a curve saturates."""

from __future__ import annotations

import pytest

from corral.measure.answer import Shot
from corral.measure.curve import Late, Point, Run, levels, point, saturates_at


def flat(level: int, speed: float) -> Point:
    return Point(level, speed, speed, speed, 1.0, 1.0, 1.0, 4, 0)


def test_a_run_is_all_tokens_by_all_of_the_time() -> None:
    """Requests beside each other count once for the time and each for its tokens; those that failed for their time."""
    run = Run(2, (Shot(0.0, 4.0, 1.0, 10), Shot(1.0, 5.0, 2.0, 10)))
    assert (run.tokens_per_s, run.took, run.peak) == (4.0, 5.0, 2)
    run = Run(2, (*run.shots, Shot(5.0, 10.0, 6.0, 10, problem="cut")))
    assert (run.tokens_per_s, run.took, run.peak) == (2.0, 10.0, 2)
    assert (Run(1, ()).tokens_per_s, Run(1, ()).peak) == (0.0, 0)


def test_a_point_is_the_median_run() -> None:
    """Of several runs the median one counts, and the spread is told."""
    runs = [Run(1, (Shot(0.0, took, 0.5, 10, last=took),)) for took in (1.0, 2.0, 5.0)]
    found = point([*runs, Run(1, (Shot(0.0, 1.0, problem="cut"),))])
    assert (found.fastest_run, found.slowest_run) == (10.0, 0.0)
    assert found.first_token_ms == 500.0 and found.failed == 1 and found.problem == "cut" and found.requests == 4
    assert found.each_token_ms == pytest.approx(1500 / 9)


@pytest.mark.parametrize(
    ("speeds", "level"),
    [
        ([10, 20, 40, 80], None),
        ([10, 20, 21, 20], 2),
        ([10, 9, 9, 9], 1),
        ([10, 10.5, 30, 31], 4),
        ([10], None),
    ],
)
def test_it_saturates_where_more_bring_no_more(speeds: list[float], level: int | None) -> None:
    """The first level from which on no later one brings a tenth more; a dip that is made up for is none."""
    assert saturates_at([flat(1 << at, speed) for at, speed in enumerate(speeds)]) == level


def test_levels_double() -> None:
    """1, 2, 4 … and the last one itself."""
    assert levels(256) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert levels(6) == [1, 2, 4, 6] and levels(1) == [1]


@pytest.mark.parametrize(
    ("late", "gap_s", "limited"),
    [
        (Late(0.5, 1.0, 3.0, 0.2), 0.01, False),
        (Late(0.5, 1.9, 3.0, 0.2), 0.001, False),  # less than the clock of a sleep tells
        (Late(0.5, 2.4, 3.0, 0.2), 0.01, False),  # a quarter of the gap is more
        (Late(0.5, 2.6, 3.0, 0.2), 0.01, True),
        (Late(0.5, 1.0, 3.0, 0.95), 0.01, True),
    ],
)
def test_a_generator_at_its_limit_is_told(late: Late, gap_s: float, limited: bool) -> None:
    """By a processor that it filled, or by lateness that shows beside the time between two tokens."""
    shots = (Shot(0.0, 1.0, 0.1, 3, last=1.0, gaps=(gap_s, gap_s)),)
    assert bool(Run(1, shots, late=late).limited) is limited
    assert Run(1, shots).limited == ""
