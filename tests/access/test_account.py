"""All limits of one key: taken together or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from corral.access.account import MOST_UNSAID, Account, Admission, Refused
from corral.access.keys import Limits
from corral.access.sizes import NOTHING, Size

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC).timestamp()
some = st.none() | st.integers(1, 2000)
limits = st.builds(Limits, some, some, st.none() | st.integers(1, 5), some, some)
sizes = st.builds(Size, st.integers(0, 500), st.none() | st.integers(0, 500), st.integers(1, 3)) | st.just(NOTHING)


@given(limits, st.lists(st.tuples(sizes, st.floats(0, 1), st.integers(0, 3), st.floats(0, 40)), max_size=40))
def test_no_limit_is_ever_passed(limits: Limits, asked: list[tuple[Size, float, int, float]]) -> None:
    """Whatever comes, in whatever order it ends: each limit holds, and a refusal takes nothing."""
    account, now = Account(limits, {}, NOW), 0.0
    running: list[Admission] = []
    spent = 0
    for size, part, ending, pause in asked:
        now += pause
        before = (account.streams, [(budget.used, budget.held) for budget in account.budgets])
        found = account.admit(size, now, NOW + now)
        if isinstance(found, Refused):
            assert (account.streams, [(budget.used, budget.held) for budget in account.budgets]) == before
            assert found.text and found.limit.replace("-", "_") in Limits.__dataclass_fields__
        else:
            assert found.tokens >= (size.least if limits.counts_tokens and size.counts else 0)
            if found.each is not None:
                assert 1 <= found.each <= MOST_UNSAID
                assert found.tokens == size.prompt + found.each * size.answers
            running.append(found)
        for _ in range(min(ending, len(running))):
            ended = running.pop(0)
            took = int(ended.tokens * part)
            spent += took
            account.settle(ended, took)
        assert account.streams == len(running) <= (limits.streams or len(running))
        for bound in (limits.tokens_per_day, limits.tokens_per_month):
            assert bound is None or spent <= bound


def test_a_refusal_says_which_limit_and_when() -> None:
    """Each in its own words, with the seconds after which it makes sense to try again."""
    one = Size(10, 10)

    def refused(limits: Limits, size: Size = one, spent: int = 0) -> Refused:
        account = Account(limits, {"2026-11-21": spent, "2026-11": spent}, NOW)
        first = account.admit(size, 0.5, NOW)
        found = account.admit(size, 0.5, NOW) if isinstance(first, Admission) else first
        assert isinstance(found, Refused)
        return found

    assert refused(Limits(streams=1)).limit == "streams"
    minute = refused(Limits(requests_per_minute=1))
    assert (minute.limit, minute.retry_after_s) == ("requests-per-minute", 60.5)
    assert refused(Limits(tokens_per_minute=30)).retry_after_s == 60.5
    never = refused(Limits(tokens_per_minute=5))
    assert never.retry_after_s is None and "may take 20 tokens" in never.text
    day = refused(Limits(tokens_per_day=100), spent=90)
    assert (day.limit, day.retry_after_s) == ("tokens-per-day", 16 * 3600)
    assert "10 of this key's 100 tokens a day are left" in day.text
    assert refused(Limits(tokens_per_month=100), spent=100).limit == "tokens-per-month"


def test_a_request_without_a_bound_gets_one() -> None:
    """As much as is left, within reason and within what the model can give."""
    account = Account(Limits(tokens_per_day=1000), {}, NOW)
    found = account.admit(Size(100, None, 2), 0.0, NOW)
    assert isinstance(found, Admission) and found.each == 450
    account.settle(found, 0)
    found = account.admit(Size(100, None, most_each=200), 0.0, NOW)
    assert isinstance(found, Admission) and (found.each, found.tokens) == (200, 300)
    large = Account(Limits(tokens_per_month=10**9), {}, NOW).admit(Size(100, None), 0.0, NOW)
    assert isinstance(large, Admission) and large.each == MOST_UNSAID


def test_what_takes_no_tokens_needs_none() -> None:
    """Counting tokens goes on when the budget is gone."""
    account = Account(Limits(tokens_per_day=10), {"2026-11-21": 10}, NOW)
    assert isinstance(account.admit(NOTHING, 0.0, NOW), Admission)
    assert isinstance(account.admit(Size(1, 1), 0.0, NOW), Refused)


def test_of_several_answers_what_was_set_aside_is_taken() -> None:
    """An engine that counts one answer of several is not believed: too much is counted, never too little."""
    account = Account(Limits(tokens_per_day=1000), {}, NOW)
    found = account.admit(Size(10, 20, 3), 0.0, NOW)
    assert isinstance(found, Admission)
    account.settle(found, 30)
    assert account.budgets[0].used == 70
    found = account.admit(Size(10, 20, 3), 0.0, NOW)
    assert isinstance(found, Admission)
    account.settle(found, 0)  # refused by the engine
    assert account.budgets[0].used == 70
    found = account.admit(Size(10, 20, 3), 0.0, NOW)
    assert isinstance(found, Admission)
    account.settle(found, 30, answers=3)  # it counted all
    assert account.budgets[0].used == 100


def test_a_bound_that_an_engine_might_not_find_is_told() -> None:
    """What is set aside for it is the same."""
    account = Account(Limits(tokens_per_day=1000), {}, NOW)
    for told, each in ((False, None), (True, 20)):
        found = account.admit(Size(10, 20, told=told), 0.0, NOW)
        assert isinstance(found, Admission) and (found.tokens, found.each) == (30, each)
