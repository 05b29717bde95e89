"""The order of long tests loses none, and gives each worker its share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.order import spread

LASTS = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0, 5.0, 30.0, 130.0]), max_size=60)


@given(LASTS, st.integers(1, 6), st.integers(1, 9))
def test_every_test_is_there_once(lasts: list[float], workers: int, spans: int) -> None:
    """Whatever the number of workers, and those of a group are side by side, in their order."""
    groups = [place // spans for place in range(len(lasts))]
    order = spread(lasts, groups, workers)
    assert sorted(order) == list(range(len(lasts)))
    for group in set(groups):
        members = [place for place in range(len(lasts)) if groups[place] == group and lasts[place]]
        at = order.index(members[0]) if members else 0
        assert order[at : at + len(members)] == members


def test_each_worker_begins_with_something_long() -> None:
    """In the stretches that pytest-xdist deals out: a quarter of what is left to each of four."""
    lasts = [130.0, 70.0, 60.0, 50.0, 40.0, 30.0, *[0.0] * 34]
    order = spread(lasts, list(range(40)), 4)
    stretches = [order[at : at + 10] for at in range(0, 40, 10)]
    assert [sum(lasts[place] for place in each) for each in stretches] == [130.0, 70.0, 90.0, 90.0]
    assert [lasts[each[0]] for each in stretches] == [130.0, 70.0, 60.0, 50.0]
