"""Budgets: never overspent, and after a crash never less spent than was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from corral.access.budget import Budget, Held, Span, ends_in_s, period_of

MORNING = datetime(2026, 11, 21, 8, tzinfo=UTC).timestamp()
DAY = 86_400.0


@dataclass(eq=False)
class Running:
    """A request: what it holds, and whether it was let go, as only what is written down may be."""

    held: Held
    level: int
    server: int
    let_go: bool = False


class Spending(RuleBasedStateMachine):
    """Requests, a disk that writes late, days that end, and crashes. `spent` is what really was, by day."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.limit = 1000
        self.now = MORNING
        self.disk: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.writing: tuple[str, int] | None = None
        self.server = 0
        self.budget = Budget("day", self.limit, period_of("day", self.now), 0)

    @rule(target=requests, amount=st.integers(1, 400))
    def ask(self, amount: int) -> Running | None:
        self.budget.turn(self.now)
        if amount > self.budget.room:
            return None
        held = self.budget.hold(amount)
        return Running(held, self.budget.used + self.budget.held, self.server)

    @precondition(lambda self: self.writing is None and self.budget.wants is not None)
    @rule()
    def begin_to_write(self) -> None:
        assert self.budget.wants is not None
        self.writing = (self.budget.period, self.budget.wants)

    @precondition(lambda self: self.writing is not None)
    @rule()
    def written(self) -> None:
        assert self.writing is not None
        period, durable = self.writing
        self.disk[period] = max(self.disk.get(period, 0), durable)
        self.budget.written(period, durable)
        self.writing = None

    @rule(request=consumes(requests), part=st.floats(0, 1))
    def end(self, request: Running | None, part: float) -> None:
        """It ends with any part of what it reserved; if it was not written down, it never ran."""
        if request is None or request.server != self.server:
            return
        ran = request.held.period != self.budget.period or request.level <= self.budget.durable
        took = int(request.held.amount * part) if ran else 0
        self.spent[request.held.period] = self.spent.get(request.held.period, 0) + took
        self.budget.settle(request.held, took)

    @rule(hours=st.floats(0.1, 30))
    def later(self, hours: float) -> None:
        self.now += hours * 3600

    @rule()
    def crash(self) -> None:
        """kill -9: memory is gone, and so is what was being written; the book is what is left."""
        self.server += 1
        self.writing = None
        period = period_of("day", self.now)
        self.budget = Budget("day", self.limit, period, self.disk.get(period, 0))

    @rule()
    def end_cleanly(self) -> None:
        """A server that ends with nothing running gives back what it wrote ahead."""
        if self.budget.held == 0 and self.writing is None:
            period = self.budget.period
            if self.disk.get(period) == self.budget.durable:
                self.disk[period] = self.budget.used
            self.server += 1
            period = period_of("day", self.now)
            self.budget = Budget("day", self.limit, period, self.disk.get(period, 0))

    @invariant()
    def never_overspent(self) -> None:
        assert all(spent <= self.limit for spent in self.spent.values())
        assert self.budget.used + self.budget.held <= self.limit

    @invariant()
    def never_counted_too_little(self) -> None:
        """What a crash now would find is at least what was spent."""
        for period, spent in self.spent.items():
            if period == self.budget.period:
                assert self.disk.get(period, 0) >= spent or self.budget.used >= spent
                assert self.budget.used >= spent

    @invariant()
    def memory_is_covered(self) -> None:
        assert self.budget.durable <= max(self.disk.get(self.budget.period, 0), 0)


Spending.TestCase.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
TestSpending = Spending.TestCase


class MoreSpending(Spending):
    """The same, many more times."""


TestMoreSpending = pytest.mark.long(MoreSpending.TestCase)
TestMoreSpending.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**6), max_size=30))
def test_what_is_wanted_covers_and_stays_in_bounds(limit: int, amounts: list[int]) -> None:
    """Once what is wanted is written, everything held is covered; and it is never more than the limit."""
    budget = Budget("month", limit, "2026-11")
    for amount in amounts:
        if amount > budget.room:
            continue
        budget.hold(amount)
        if not budget.covered:
            assert budget.wants is not None
        if (wants := budget.wants) is not None:
            assert budget.used + budget.held <= wants <= limit
            budget.written("2026-11", wants)
        assert budget.covered


def test_a_month_and_a_day_end_when_the_calendar_says() -> None:
    """In UTC; December's month ends with the year."""
    at = datetime(2026, 12, 31, 23, 59, 0, tzinfo=UTC).timestamp()
    assert (period_of("day", at), period_of("month", at)) == ("2026-12-31", "2026-12")
    spans: tuple[Span, Span] = ("day", "month")
    assert [ends_in_s(span, at) for span in spans] == [60.0, 60.0]
    assert ends_in_s("month", MORNING) == 9 * DAY + 16 * 3600


def test_a_clock_that_is_set_back_gives_nothing_twice() -> None:
    """The later day stays the one that counts."""
    budget = Budget("day", 10, period_of("day", MORNING), 0)
    budget.settle(budget.hold(10), 10)
    budget.turn(MORNING - DAY)
    assert budget.room == 0
    budget.turn(MORNING + DAY)
    assert budget.room == 10


def test_what_ends_after_midnight_counts_on_the_day_before() -> None:
    """It was let in then; the new day's budget is whole."""
    budget = Budget("day", 10, period_of("day", MORNING), 0)
    held = budget.hold(10)
    budget.turn(MORNING + DAY)
    budget.settle(held, 7)
    assert (budget.used, budget.held, budget.room) == (0, 0, 10)
