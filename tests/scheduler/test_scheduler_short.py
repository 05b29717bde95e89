"""What a refusal says of the memory that was missing."""

from __future__ import annotations

from corral.scheduler.decide import step
from corral.scheduler.messages import Asked, MemorySeen, Reject, Ticked
from corral.scheduler.state import Place, Policy, Scheduling, Spec


def refusal(free: int, *, headroom: int) -> str:
    """Why a model of 4 bytes is refused in the end."""
    spec = Spec("a", footprint={"cpu": 4})
    state = Scheduling(Policy(headroom=headroom), {"a": Place(spec)}, looks=True)
    step(state, Asked(1, "a", 30.0), 0.0)
    step(state, MemorySeen({"cpu": free}, {"cpu": 20}, 10.0), 10.0)
    (rejected,) = (each for each in step(state, Ticked(), 30.0) if isinstance(each, Reject))
    return rejected.error.message


def test_headroom_is_named_where_it_is_the_reason() -> None:
    """Memory that is free but to be left free is said to be so; else the figures would contradict each other."""
    assert "needs 4 B on cpu, 8 B free of which 6 B stay free (headroom), 12 B used by others" in refusal(8, headroom=6)
    assert "needs 4 B on cpu, 3 B free, 17 B used by others" in refusal(3, headroom=1)


def test_the_count_is_named_where_it_is_the_reason() -> None:
    """Where pinned models take up the number that may be loaded, that is said, and not memory."""
    state = Scheduling(Policy(max_active=1), {"a": Place(Spec("a", pin=True)), "b": Place(Spec("b"))})
    step(state, Asked(1, "a", 30.0), 0.0)
    (rejected,) = (each for each in step(state, Asked(2, "b", 30.0), 0.0) if isinstance(each, Reject))
    assert "no more than 1 may be loaded at once (max_active), and so many are pinned (a)" in rejected.error.message
    assert "max_active" in rejected.error.hint
