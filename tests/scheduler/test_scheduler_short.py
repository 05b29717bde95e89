"""What a refusal says of the memory that was missing."""

from __future__ import annotations

from corral.scheduler.decide import step
from corral.scheduler.messages import Asked, Look, MemorySeen, Reject, Scheduled, Start, Ticked, WakeAt
from corral.scheduler.state import Keep, Place, Policy, Scheduling, Spec


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


def test_what_nobody_waits_for_is_looked_for_seldom() -> None:
    """A model kept by its schedule, whose memory others hold, has the devices looked at every ten seconds and not more,
    and it starts once the memory is there."""
    state = Scheduling(Policy(headroom=1), {"a": Place(Spec("a", footprint={"gpu0": 12}))}, looks=True)
    now, looks = 0.0, 0
    out = step(state, Scheduled({"a": Keep.READY}), now)
    while now < 120.0:
        if any(isinstance(each, Look) for each in out):
            looks += 1
            out = step(state, MemorySeen({"gpu0": 5}, {"gpu0": 20}, now), now)
        else:
            now = min(each.at for each in out if isinstance(each, WakeAt))
            out = step(state, Ticked(), now)
    assert looks <= 30, "some more in the first seconds, in which memory may be on its way back"
    assert any(isinstance(each, Look) for each in out)
    assert any(isinstance(each, Start) for each in step(state, MemorySeen({"gpu0": 19}, {"gpu0": 20}, now), now))
