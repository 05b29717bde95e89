"""Starts wait for memory that is really free: scripts of readings, ends and starts."""

from __future__ import annotations

from dataclasses import replace

from corral.errors import CannotFit
from corral.scheduler.messages import Asked, BecameReady, Configured, Ended, Measured, MemorySeen, Returned, Ticked
from corral.scheduler.state import Policy, Spec
from support.scheduler_script import Script

POLICY = Policy(headroom=1)
TOTAL = {"gpu0": 20}


def seeing(*specs: Spec, policy: Policy = POLICY) -> Script:
    script = Script(*specs, policy=policy)
    script.state.looks = True
    return script


def saw(
    script: Script, free: int, *, at: float | None = None, taken: dict[str, dict[str, int]] | None = None
) -> list[str]:
    when = script.now if at is None else at
    return script(MemorySeen({"gpu0": free}, TOTAL, when, taken or {}), at=when)


def spec(name: str, size: int, **more: bool) -> Spec:
    return Spec(name, footprint={"gpu0": size}, idle_timeout_s=None, **more)  # type: ignore[arg-type]


def test_a_start_waits_for_a_look() -> None:
    """Before a start the memory is looked at, once for all who wait, and a fresh reading serves the next one too."""
    script = seeing(spec("a", 8), spec("b", 8))
    assert script.ask(1, "a") == ["look"]
    assert script.ask(2, "a") == []
    assert saw(script, 20) == ["start a.1"]
    assert script.ask(3, "b") == ["start b.1"], "20 free, of which a takes 8, and 1 stays free"
    assert script.ask(4, "b", at=5.0) == []


def test_what_still_loads_is_counted() -> None:
    """A unit that still loads counts as if it had taken nothing yet, unless the reading says what it has."""
    script = seeing(spec("a", 8), spec("b", 8))
    script.ask(1, "a")
    saw(script, 20)
    assert script.ask(2, "b", at=4.0) == ["look"]
    assert saw(script, 16) == [], "a has some of its 8 already, but nobody knows how much"
    assert script(Ticked(), at=5.0) == ["look"]
    assert saw(script, 16, taken={"a": {"gpu0": 4}}) == ["start b.1"]


def test_memory_is_confirmed_free_before_the_next_load() -> None:
    """A reading that began before an end and shows too little is made again; what is not back yet is looked for again,
    less and less often."""
    script = seeing(spec("a", 12), spec("b", 12))
    script.ask(1, "a")
    saw(script, 20)
    script(BecameReady("a", 1), at=1.0)
    script(Returned(1, "a"))
    assert script.ask(2, "b", at=10.0) == ["look", "stop a.1"]
    assert saw(script, 8) == []
    assert script(Ended("a", 1), at=10.5) == ["look"]
    assert saw(script, 8, at=10.4) == ["look"], "it began before the end"
    assert saw(script, 8, at=10.6) == []
    assert script(Ticked(), at=10.61) == []
    assert script(Ticked(), at=10.7) == ["look"]
    assert saw(script, 10, at=10.71) == []
    assert script(Ticked(), at=11.0) == ["look"]
    assert saw(script, 20, at=11.0) == ["start b.1"]


def test_enough_without_what_ends_needs_no_second_look() -> None:
    """Where a look while the last engine ends finds enough already, the next start waits for no other."""
    script = seeing(spec("a", 6), spec("b", 6), policy=Policy(headroom=1, max_active=1))
    script.ask(1, "a")
    saw(script, 20)
    script(BecameReady("a", 1), at=1.0)
    script(Returned(1, "a"))
    assert script.ask(2, "b", at=10.0) == ["look", "stop a.1"]
    assert saw(script, 14) == []
    assert script(Ended("a", 1), at=10.5) == ["start b.1"]


def test_what_others_hold_is_waited_for_and_said() -> None:
    """Memory that other programs hold is waited for, and named when the deadline comes; it is used as it gets free."""
    script = seeing(spec("a", 12))
    script.ask(1, "a", deadline=30.0)
    saw(script, 8)
    assert script.ask(2, "a", deadline=100.0) == []
    assert script(Ticked(), at=30.0) == ["reject 1", "look"]
    error = script.errors[1]
    assert isinstance(error, CannotFit)
    assert "needs 12 B on gpu0, 8 B free, 12 B used by others" in error.message
    assert saw(script, 19) == ["start a.1"]


def test_idle_units_go_when_others_take_more() -> None:
    """Where the books say there is room but others hold it, idle units make room, and only as many as needed."""
    script = seeing(spec("a", 3), spec("b", 6), spec("c", 8), spec("pinned", 1, pin=True))
    for waiter, name in enumerate(("a", "b", "pinned"), 1):
        script.ask(waiter, name)
        saw(script, 20)
        script(BecameReady(name, 1))
        script(Returned(waiter, name))
    assert script.ask(9, "c", at=20.0) == ["look"]
    assert saw(script, 5) == ["stop b.1"], "5 free, 1 stays free: 4 are missing"
    assert script(Ended("b", 1), at=21.0) == ["look"]
    assert saw(script, 11) == ["start c.1"]


def test_without_budget_the_device_is_the_budget() -> None:
    """Units together never take more than a device has less the headroom, and what alone exceeds that is refused."""
    script = seeing(spec("a", 12), spec("b", 12), spec("c", 20))
    script.ask(1, "a")
    saw(script, 20)
    script(BecameReady("a", 1))
    assert script.ask(2, "b") == [], "a is busy"
    assert script.ask(3, "c") == ["reject 3"]
    assert "it needs 20 B on gpu0, and 19 B may be used there" in script.errors[3].message


def test_a_measured_footprint_replaces_the_prediction() -> None:
    """What a load was seen to take counts from then on, also after the configuration is read again."""
    script = seeing(spec("a", 4), spec("b", 12))
    script.ask(1, "a")
    saw(script, 20)
    script(BecameReady("a", 1))
    script(Measured("a", {"gpu0": 9}))
    script(Configured({"a": spec("a", 4), "b": spec("b", 12)}, POLICY))
    assert script.ask(2, "b") == [], "9 and 12 do not fit together"
    script(Measured("a", {"gpu0": 2}, real=False))
    assert script.state.places["a"].spec.footprint == {"gpu0": 9}, "a prediction replaces nothing of what is there"


def test_less_room_means_a_smaller_plan() -> None:
    """What a model took when there was more room does not keep it from starting with less: a plan of its next start, or
    a newer prediction, counts instead."""
    script = seeing(spec("a", 15))
    script.ask(1, "a")
    saw(script, 10)
    assert script(Ticked(), at=6.0) == ["look"]
    assert saw(script, 10) == [], "15 do not fit"
    assert script(Measured("a", {"gpu0": 8})) == ["start a.1"]
    script(Ended("a", 1, None, 9.0), at=7.0)
    script(Measured("a", {"gpu0": 3}, real=False))
    assert script.state.places["a"].spec.footprint == {"gpu0": 3}


def test_a_look_that_fails_holds_nobody_up() -> None:
    """When the memory cannot be read, starts are judged by footprints and budgets alone."""
    script = seeing(spec("a", 4))
    assert script.ask(1, "a") == ["look"]
    assert script(MemorySeen({}, {}, script.now)) == ["start a.1"]


def test_loads_on_different_devices_do_not_wait_for_each_other() -> None:
    """A model that waits for room on one device holds up none on another, nor one that fits beside it."""
    busy, big = spec("busy", 12), spec("big", 12)
    other = Spec("other", footprint={"gpu1": 12})
    small = spec("small", 4)
    script = Script(busy, big, other, small, policy=Policy(budgets={"gpu0": 16, "gpu1": 16}))
    script.ask(1, "busy")
    script(BecameReady("busy", 1))
    assert script(Asked(2, "big", 1000.0)) == []
    assert script.ask(3, "other") == ["start other.1"]
    assert script.ask(4, "small") == ["start small.1"], "it fits beside busy now, and beside big later"


def test_weights_in_a_mapped_file_need_not_fit() -> None:
    """Where only weights are missing that are mapped from their file, a model starts once nothing of ours could make
    room for it, and it is said; what must be in memory is still judged, and so is a budget."""
    large = Spec("a", footprint={"cpu": 16}, mapped=12, idle_timeout_s=None)
    idle = Spec("b", footprint={"cpu": 3}, idle_timeout_s=None)
    script = seeing(large, idle)
    total = {"cpu": 20}
    script.ask(1, "b")
    assert script(MemorySeen({"cpu": 10}, total, 0.0, {})) == ["start b.1"]
    script(BecameReady("b", 1), at=1.0)
    script(Returned(1, "b"))
    script.ask(2, "a", at=20.0)
    words = script(MemorySeen({"cpu": 14}, total, 20.0, {"b": {"cpu": 3}}))
    assert words == ["stop b.1"], "first what is ours goes, where that is enough"
    script(Ended("b", 1), at=20.1)
    assert "start a.1" not in script(MemorySeen({"cpu": 10}, total, 20.2, {})), "others hold it; it may still come"
    script(Ticked(), at=26.0)
    assert script(MemorySeen({"cpu": 10}, total, 26.0, {})) == ["start a.1"]
    assert "needs 16 B on cpu, 10 B free" in script.although["a"]

    script = seeing(replace(large, mapped=4))
    script.ask(1, "a", at=20.0)
    assert script(MemorySeen({"cpu": 10}, total, 20.0, {})) == []
    script = seeing(replace(large, footprint={"cpu": 40}, mapped=30))
    script.ask(1, "a", at=20.0)
    assert script(MemorySeen({"cpu": 18}, total, 20.0, {})) == ["start a.1"], "more than there is at all"
    script = seeing(replace(large, footprint={"cpu": 40}, mapped=30), policy=Policy(headroom=1, budgets={"cpu": 19}))
    assert script.ask(1, "a") == ["reject 1"], "a budget is a budget"
