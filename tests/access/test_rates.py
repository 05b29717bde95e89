"""Windows of a minute: never more than the limit in any minute, and no longer a wait than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.access.rates import SPAN_S, Window

steps = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 8)), min_size=1, max_size=80)


@given(st.integers(1, 20), steps)
def test_no_minute_ever_holds_more_than_the_limit(limit: int, asked: list[tuple[float, int]]) -> None:
    """Whatever is taken when there is room, in any sixty seconds, wherever they begin, it is at most the limit."""
    window, now = Window(limit), 1000.0
    taken: list[tuple[float, int]] = []
    for pause, amount in asked:
        now += pause
        if window.wait_s(now, amount) == 0.0:
            window.take(now, amount)
            taken.append((now, amount))
    for begin, _ in taken:
        assert sum(amount for at, amount in taken if begin <= at < begin + SPAN_S) <= limit


@given(st.integers(1, 20), steps)
def test_after_the_wait_there_is_room(limit: int, asked: list[tuple[float, int]]) -> None:
    """Whoever waits as long as was said is let in, and never has to wait much more than a minute."""
    window, now = Window(limit), 1000.0
    for pause, amount in asked:
        now += pause
        wait_s = window.wait_s(now, amount)
        if wait_s is None:
            assert amount > limit
            continue
        assert 0 <= wait_s <= SPAN_S + 1
        now += wait_s
        assert window.wait_s(now, amount) == 0.0
        window.take(now, amount)


@given(st.lists(st.tuples(st.floats(0, 70), st.integers(0, 9), st.integers(0, 9)), max_size=60))
def test_corrections_add_up(steps: list[tuple[float, int, int]]) -> None:
    """The sum is that of what was last said of everything that still counts."""
    window, now = Window(10**9), 1000.0
    known: list[tuple[int, int]] = []
    for pause, amount, actual in steps:
        now += pause
        taken = window.take(now, amount)
        window.correct(taken, actual)
        known.append((taken.second, actual))
        left = sum(actual for second, actual in known if second + 1 + SPAN_S > now)
        assert window.room(now) == 10**9 - left


def test_what_is_settled_late_gives_room_at_once() -> None:
    """A reservation that turns out to be too large is given back where it was taken."""
    window = Window(100)
    taken = window.take(5.0, 100)
    assert window.room(6.0) == 0
    window.correct(taken, 30)
    assert window.room(6.0) == 70
    assert window.room(5 + 1 + SPAN_S - 0.1) == 70
    assert window.room(5.0 + 1 + SPAN_S) == 100
    window.correct(taken, 0)  # long over
    assert window.room(70.0) == 100


def test_more_than_the_limit_never_fits() -> None:
    """There is nothing to wait for."""
    assert Window(5).wait_s(0.0, 6) is None
