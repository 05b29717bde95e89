"""What a refusal says of the memory that was missing."""

from __future__ import annotations

import pytest

from corral.errors import CannotFit, CorralError, DeadlinePassed
from corral.scheduler.decide import step
from corral.scheduler.messages import (
    Asked,
    BecameReady,
    Command,
    Ended,
    Foretell,
    Grant,
    Lacks,
    Look,
    Measured,
    MemorySeen,
    Reject,
    Returned,
    Scheduled,
    Start,
    Ticked,
    WakeAt,
)
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


def only(commands: list[Command], kind: type) -> list[Command]:
    return [each for each in commands if isinstance(each, kind)]


def test_what_a_start_lacks_is_said_at_once() -> None:
    """The first look that finds memory held by others is told of, once for each start; whoever waited for it hears it
    with the answer, and those who come later do not."""
    state = Scheduling(Policy(headroom=1), {"a": Place(Spec("a", footprint={"gpu0": 12}))}, looks=True)
    assert only(step(state, Asked(1, "a", 60.0), 0.0), Lacks) == []
    words = "needs 12 B on gpu0, 8 B free, 12 B used by others"
    out = step(state, MemorySeen({"gpu0": 8}, {"gpu0": 20}, 0.0), 0.0)
    assert only(out, Lacks) == [Lacks("a", words, {"gpu0": 5})]
    out = step(state, MemorySeen({"gpu0": 7}, {"gpu0": 20}, 1.0), 1.0)
    assert not only(out, Lacks) and not only(out, Start)
    assert only(step(state, MemorySeen({"gpu0": 20}, {"gpu0": 20}, 2.0), 2.0), Start)
    (granted,) = only(step(state, BecameReady("a", 1), 3.0), Grant)
    assert isinstance(granted, Grant)
    assert "used by others" in granted.lacked
    (granted,) = only(step(state, Asked(2, "a", 60.0), 4.0), Grant)
    assert isinstance(granted, Grant)
    assert granted.lacked == ""
    step(state, Returned(1, "a"), 5.0)
    step(state, Returned(2, "a"), 5.0)
    step(state, Ended("a", 1), 5.0)
    step(state, Asked(3, "a", 60.0), 20.0)
    out = step(state, MemorySeen({"gpu0": 8}, {"gpu0": 20}, 20.0), 20.0)
    assert len(only(out, Lacks)) == 1, "another start, another word"


def test_the_deadline_carries_what_was_lacking() -> None:
    """An error at the deadline has it as data too, and names the headroom where that would help."""
    state = Scheduling(Policy(headroom=6), {"a": Place(Spec("a", footprint={"gpu0": 4}))}, looks=True)
    step(state, Asked(1, "a", 30.0), 0.0)
    step(state, MemorySeen({"gpu0": 8}, {"gpu0": 20}, 10.0), 10.0)
    (rejected,) = only(step(state, Ticked(), 30.0), Reject)
    assert isinstance(rejected, Reject)
    assert rejected.error.details["waited_for"].startswith("needs 4 B on gpu0, 8 B free")
    assert rejected.error.hint.startswith("end other programs that hold memory there, lower `context` or `headroom`")


def refused(state: Scheduling, model: str = "a") -> CorralError:
    """With what `model` is refused as soon as the memory was looked at."""
    out = step(state, Asked(9, model, 30.0), 0.0)
    if not only(out, Reject):
        out = step(state, MemorySeen({"gpu0": 3}, {"gpu0": 20}, 0.0), 0.0)
    (rejected,) = only(out, Reject)
    assert isinstance(rejected, Reject)
    return rejected.error


@pytest.mark.parametrize(
    ("size", "policy", "says", "hint"),
    [
        (30, Policy(headroom=1), "19 B may be used there (all of its 20 B but the headroom of 1 B)",
         "lower `context`, or take a smaller model or quantization"),
        (20, Policy(headroom=1), "19 B may be used there (all of its 20 B but the headroom of 1 B)",
         "lower `context`, take a smaller quantization, or lower `headroom`"),
        (30, Policy(headroom=0), "20 B may be used there (all of its 20 B)",
         "lower `context`, or take a smaller model or quantization"),
        (12, Policy(headroom=1, budgets={"gpu0": 10}), "10 B may be used there (its budget under `memory`)",
         "lower `context`, or raise the budget of gpu0 under `memory`"),
        (30, Policy(headroom=1, budgets={"gpu0": 25}), "19 B may be used there (all of its 20 B but the headroom",
         "lower `context`, or take a smaller model or quantization"),
    ],
)  # fmt: skip
def test_what_can_never_be_is_refused_at_once(size: int, policy: Policy, says: str, hint: str) -> None:
    """What needs more than there could ever be is refused with the first look, however long it would wait, and the hint
    speaks of what bounds it."""
    state = Scheduling(policy, {"a": Place(Spec("a", footprint={"gpu0": size}))}, looks=True)
    if policy.budgets == {"gpu0": 25}:
        step(state, MemorySeen({"gpu0": 3}, {"gpu0": 20}, 0.0), 0.0)
    error = refused(state)
    assert isinstance(error, CannotFit)
    assert says in error.message
    assert error.hint == hint


@pytest.mark.parametrize("budget", [None, 15])
def test_what_is_pinned_is_named_with_what_bounds_it(budget: int | None) -> None:
    """Beside a pinned model, a budget is spoken of only where there is one."""
    policy = Policy(headroom=1, budgets={} if budget is None else {"gpu0": budget})
    places = {"p": Place(Spec("p", footprint={"gpu0": 10}, pin=True)), "a": Place(Spec("a", footprint={"gpu0": 12}))}
    state = Scheduling(policy, places, looks=True)
    step(state, Asked(1, "p", 30.0), 0.0)
    step(state, MemorySeen({"gpu0": 20}, {"gpu0": 20}, 0.0), 0.0)
    step(state, BecameReady("p", 1), 1.0)
    error = refused(state)
    assert "no room on gpu0 beside what is pinned (p)" in error.message
    assert error.hint.startswith("stop or unpin a model, or lower `context`")
    assert ("budget" in error.hint) is (budget is not None)


def test_the_rest_of_a_load_is_said() -> None:
    """Who gives up during a load is told to come back when it is likely to be done: after the rest of what it usually
    takes; and once that has passed, after as long as it is late already."""
    state = Scheduling(Policy(), {"a": Place(Spec("a"))})
    place = state.places["a"]
    place.usual_load_s = 60.0
    step(state, Asked(1, "a", 20.0), 0.0)
    step(state, Asked(2, "a", 90.0), 0.0)
    for now, rest in ((20.0, 40), (90.0, 30)):
        (rejected,) = only(step(state, Ticked(), now), Reject)
        assert isinstance(rejected, Reject)
        assert isinstance(rejected.error, DeadlinePassed)
        assert f"it is still loading (about {rest} s more)" in rejected.error.message
        assert rejected.error.retry_after_s in (rest, rest + 1)  # and the turn of whoever is ahead
    place.usual_load_s = 0.0  # never loaded, and nothing known of it
    state.policy = Policy(max_queue=0)
    (rejected,) = only(step(state, Asked(3, "a", 500.0), 100.0), Reject)
    assert isinstance(rejected, Reject)
    assert rejected.error.retry_after_s == 100


def test_wishes_are_foretold_while_they_are_held_up() -> None:
    """What a schedule wants and others' memory holds up is asked what it would take now, every ten seconds at most; a
    smaller plan than the one known has it start."""
    state = Scheduling(Policy(headroom=1), {"a": Place(Spec("a", footprint={"gpu0": 12}))}, looks=True)
    out = step(state, Scheduled({"a": Keep.READY}), 0.0)
    assert not only(out, Foretell), "it is only looked at yet"
    out = step(state, MemorySeen({"gpu0": 9}, {"gpu0": 20}, 0.0), 0.0)
    assert only(out, Foretell) == [Foretell("a")]
    assert only(out, Lacks), "and it is said what it lacks"
    out = step(state, MemorySeen({"gpu0": 9}, {"gpu0": 20}, 5.0), 5.0)
    assert not only(out, Foretell) and not only(out, Lacks)
    assert only(step(state, MemorySeen({"gpu0": 9}, {"gpu0": 20}, 11.0), 11.0), Foretell)
    assert only(step(state, Measured("a", {"gpu0": 6}), 11.5), Start)


def test_the_default_is_foretold() -> None:
    """So is the default model that comes back."""
    policy = Policy(headroom=1, default_model="a", return_s=5.0)
    state = Scheduling(policy, {"a": Place(Spec("a", footprint={"gpu0": 12}))}, looks=True)
    step(state, Ticked(), 6.0)
    out = step(state, MemorySeen({"gpu0": 9}, {"gpu0": 20}, 6.0), 6.0)
    assert only(out, Foretell) == [Foretell("a")]
    assert only(step(state, Measured("a", {"gpu0": 6}), 6.5), Start)


def test_a_replica_has_its_own_plan() -> None:
    """A further replica that finds no room is foretold too, and what it would take changes nothing of what the first
    was seen to take."""
    spec = Spec("a", footprint={"gpu0": 12}, replicas=2)
    first = Place(spec)
    state = Scheduling(Policy(headroom=1), {"a": first, "a~2": Place(spec, "a~2", first.line)}, looks=True)
    step(state, Asked(1, "a", 60.0), 0.0)
    step(state, MemorySeen({"gpu0": 20}, {"gpu0": 30}, 0.0), 0.0)
    step(state, BecameReady("a", 1), 1.0)
    step(state, Measured("a", {"gpu0": 12}), 1.0)
    out = step(state, Asked(2, "a", 60.0), 2.0)
    out += step(state, MemorySeen({"gpu0": 8}, {"gpu0": 30}, 10.0, {"a": {"gpu0": 12}}), 10.0)
    assert only(out, Foretell) == [Foretell("a~2")]
    out = step(state, Measured("a~2", {"gpu0": 6}), 10.5)
    assert only(out, Start) == [Start("a~2", 1)]
    assert state.places["a"].spec.footprint == {"gpu0": 12}
    assert state.places["a~2"].spec.footprint == {"gpu0": 6}
