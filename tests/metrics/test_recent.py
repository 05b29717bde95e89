"""What the last minutes were like: percentiles, fills and rates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.metrics.recent import FIRST_TOKENS_S, SECONDS, Latest, Rate, Recent, Written, quantiles


@given(st.lists(st.floats(0, 100), min_size=1))
def test_percentiles_are_values_that_were_seen(values: list[float]) -> None:
    median, high = quantiles(values, 0.5, 0.95)
    assert median in values and high in values and median is not None and high is not None and median <= high
    assert sum(value <= median for value in values) >= len(values) / 2


def test_nothing_seen_is_nothing() -> None:
    assert quantiles([], 0.5, 0.95) == (None, None)
    assert Recent().first_token_s(0.0) == (None, None) and Recent().fill(0.0) is None
    assert Rate().now == 0.0 and Rate().history == []


def test_what_is_too_long_ago_does_not_count() -> None:
    latest = Latest(FIRST_TOKENS_S)
    latest.add(0.0, 9.0)
    latest.add(200.0, 1.0)
    assert latest.values(300.0) == [9.0, 1.0]
    assert latest.values(301.0) == [1.0]
    assert latest.values(1000.0) == []


def test_a_rate_is_that_of_ten_seconds_and_its_history_of_a_minute() -> None:
    rate = Rate()
    for second in range(100):
        rate.add(float(second))
    assert (rate.now, len(rate.history), rate.history[-1]) == (94.5, SECONDS, 99.0)
    assert not rate.is_silent


def test_pieces_are_counted_by_unit_whichever_process_wrote_them() -> None:
    written = Written()
    assert written.since({"demo.1": 5, "demo~2.1": 1}) == {"demo": 5, "demo~2": 1}
    assert written.since({"demo.1": 5, "demo.2": 3, "demo~2.1": 4}) == {"demo": 3, "demo~2": 3}
    assert written.since({"demo.2": 3}) == {"demo": 0}  # the first process is gone
    assert written.since({"demo.2": 10, "my.model.1": 2}) == {"demo": 7, "my.model": 2}
