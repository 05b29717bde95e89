"""How long a failing unit is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.supervisor import backoff


@given(st.integers(0, 10_000), st.floats(0, 0.999))
def test_it_grows_and_is_bounded(failures: int, jitter: float) -> None:
    """Each failure waits at least as long as the one before, and never longer than the bound and its jitter."""
    assert backoff.wait_s(failures) <= backoff.wait_s(failures + 1) <= backoff.LONGEST_S
    assert backoff.wait_s(failures, jitter) <= backoff.LONGEST_S * 1.25


def test_the_first_restart_does_not_wait() -> None:
    """Without a failure there is no pause; the next is one that fits into the quarter second a recovery may take."""
    assert backoff.wait_s(0) == 0.0
    assert 0 < backoff.wait_s(1, 0.999) < 0.2
    assert not backoff.gave_up(1)
    assert backoff.gave_up(backoff.GIVE_UP_AFTER)
