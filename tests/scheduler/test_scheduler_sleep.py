"""Units that sleep instead of ending: scripts of events in and commands out, one per rule."""

from __future__ import annotations

from corral.scheduler.messages import BecameReady, Configured, Ended, Measured, Returned, Slept, StopAsked, Ticked
from corral.scheduler.state import Phase, Policy, Spec
from support.scheduler_script import ONE, Script

GPU = {"gpu0": 10}


def sleeper(name: str = "a", **more: object) -> Spec:
    return Spec(name, footprint=GPU, sleeps=True, asleep={"gpu0": 1}, **more)  # type: ignore[arg-type]


def ready(script: Script, name: str = "a", waiter: int = 1) -> None:
    script.ask(waiter, name)
    script(BecameReady(name, 1))
    script(Returned(waiter, name))


def test_an_idle_unit_sleeps_and_wakes() -> None:
    """Idle for long enough it goes to sleep; the next request wakes the same process, and is granted when it has."""
    script = Script(sleeper(idle_timeout_s=60.0))
    ready(script)
    assert script(Ticked(), at=61.0) == ["sleep a.1"]
    assert script(Slept("a", 1)) == []
    assert script.state.places["a"].phase is Phase.SLEEPING
    assert script(Ticked(), at=900.0) == [], "it sleeps for as long as nobody needs its room"
    assert script.ask(2, "a") == ["wake a.1"]
    assert script(BecameReady("a", 1), at=902.0) == ["grant 2 a"]
    assert script.grants[2].load_s == 2.0


def test_waking_is_no_measure_of_loading() -> None:
    """What a start usually takes is not made shorter by how fast it woke."""
    script = Script(sleeper(idle_timeout_s=60.0))
    script.ask(1, "a")
    script(BecameReady("a", 1), at=40.0)
    script(Returned(1, "a"))
    script(Ticked(), at=101.0)
    script(Slept("a", 1))
    script.ask(2, "a")
    script(BecameReady("a", 1), at=102.0)
    assert script.state.places["a"].usual_load_s == 40.0


def test_what_gives_nothing_back_is_stopped_when_idle() -> None:
    """Where sleeping frees no memory, as on a processor, an idle unit ends as ever."""
    script = Script(Spec("a", idle_timeout_s=60.0, footprint=GPU, sleeps=True, asleep=GPU))
    ready(script)
    assert script(Ticked(), at=61.0) == ["stop a.1"]


def test_it_makes_room_by_sleeping() -> None:
    """A unit in the way sleeps where that frees enough, and the other starts once it does."""
    script = Script(sleeper("a"), sleeper("b"), policy=Policy(budgets={"gpu0": 12}))
    ready(script)
    assert script.ask(2, "b", at=50.0) == ["sleep a.1"]
    assert script(Slept("a", 1)) == ["start b.1"], "10 and 1 are no more than 12"
    script(BecameReady("b", 1))
    script(Returned(2, "b"))
    assert script.ask(3, "a", at=100.0) == ["sleep b.1"]
    assert script(Slept("b", 1)) == ["wake a.1"]


def test_it_ends_where_sleeping_is_not_enough() -> None:
    """What it would still hold asleep counts: a unit that needs all of the device has the other one stopped."""
    script = Script(sleeper("a"), Spec("b", footprint={"gpu0": 12}), policy=Policy(budgets={"gpu0": 12}))
    ready(script)
    assert script.ask(2, "b", at=50.0) == ["stop a.1"]


def test_one_that_sleeps_is_stopped_for_the_last_of_its_room() -> None:
    """A sleeping unit makes room like any other: what it still holds goes with it."""
    script = Script(
        sleeper("a", idle_timeout_s=60.0), Spec("b", footprint={"gpu0": 12}), policy=Policy(budgets={"gpu0": 12})
    )
    ready(script)
    script(Ticked(), at=61.0)
    script(Slept("a", 1))
    assert script.ask(2, "b", at=70.0) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start b.1"]


def test_one_that_sleeps_goes_for_an_earlier_turn_though_somebody_waits_for_it() -> None:
    """Its own waiters come after those of a model that may not stand beside it. They do not wait for each other."""
    script = Script(sleeper("a", idle_timeout_s=60.0), Spec("e", exclusive=True))
    ready(script)
    assert script(Ticked(), at=61.0) == ["sleep a.1"]
    assert script.ask(2, "a", at=62.0) == script.ask(3, "e", at=63.0) == []
    assert script(Slept("a", 1), at=64.0) == ["stop a.1"], "it had its turn, and e waits for longer since"
    assert script(Ended("a", 1)) == ["start e.1"]
    script(BecameReady("e", 1))
    assert script(Returned(3, "e"), at=70.0) == ["stop e.1"]
    assert script(Ended("e", 1)) == ["start a.2"]


def test_who_sleeps_does_not_count_as_loaded() -> None:
    """Under max_active 1 the other one starts beside a unit that sleeps, and they change places without a load."""
    script = Script(sleeper("a"), sleeper("b"), policy=ONE)
    ready(script)
    assert script.ask(2, "b", at=50.0) == ["sleep a.1"]
    assert script(Slept("a", 1)) == ["start b.1"]
    script(BecameReady("b", 1))
    script(Returned(2, "b"))
    assert script.ask(3, "a", at=100.0) == ["sleep b.1"]
    assert script(Slept("b", 1)) == ["wake a.1"]


def test_one_that_does_not_sleep_ends() -> None:
    """An engine that refuses is stopped instead; who waits for its room, and for itself, is served all the same."""
    script = Script(sleeper("a"), sleeper("b"), policy=ONE)
    ready(script)
    script.ask(2, "b", at=50.0)
    assert script(Ended("a", 1)) == ["start b.1"]


def test_one_that_does_not_wake_is_started_anew() -> None:
    """A process that dies while it wakes up is a crash: those who wait get the next start."""
    script = Script(sleeper(idle_timeout_s=60.0))
    ready(script)
    script(Ticked(), at=61.0)
    script(Slept("a", 1))
    assert script.ask(2, "a") == ["wake a.1"]
    assert script(Ended("a", 1, None, 61.0)) == ["start a.2"]
    assert script(BecameReady("a", 2)) == ["grant 2 a"]


def test_asked_to_stop_it_ends_while_it_sleeps_or_dozes() -> None:
    """A stop is a stop: asleep or on the way there, the process goes."""
    script = Script(sleeper(idle_timeout_s=60.0))
    ready(script)
    script(Ticked(), at=61.0)
    assert script(StopAsked("a", "asked")) == [], "it is going to sleep just now"
    assert script(Slept("a", 1)) == ["stop a.1"]
    script(Ended("a", 1))
    script.ask(2, "a")
    script(BecameReady("a", 2))
    script(Returned(2, "a"))
    script(Ticked(), at=200.0)
    script(Slept("a", 2))
    assert script(StopAsked("a", "asked")) == ["stop a.2"]


def test_one_that_is_outdated_or_removed_ends_while_it_sleeps() -> None:
    """A sleeping process that was started with other settings is of no use."""
    script = Script(sleeper(idle_timeout_s=60.0), sleeper("b", idle_timeout_s=60.0))
    ready(script)
    ready(script, "b", 2)
    script(Ticked(), at=61.0)
    script(Slept("a", 1))
    script(Slept("b", 1))
    assert sorted(script(Configured({"a": sleeper()}, Policy(), frozenset({"a"})))) == ["stop a.1", "stop b.1"]


def test_a_request_that_comes_while_it_dozes_wakes_it() -> None:
    """It is asleep first: the engine is in the middle of it."""
    script = Script(sleeper(idle_timeout_s=60.0))
    ready(script)
    script(Ticked(), at=61.0)
    assert script.ask(2, "a") == []
    assert script(Slept("a", 1)) == ["wake a.1"]


def test_what_it_holds_asleep_is_learned_with_its_footprint() -> None:
    """A plan says what both will be; before that nothing sleeps."""
    script = Script(Spec("a", idle_timeout_s=60.0, sleeps=True))
    ready(script)
    script(Measured("a", GPU, asleep={"gpu0": 1}))
    assert script(Ticked(), at=61.0) == ["sleep a.1"]
