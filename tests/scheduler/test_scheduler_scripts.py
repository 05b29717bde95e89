"""Scripts of events in and commands out, one per rule."""

from __future__ import annotations

from corral.errors import CannotFit, DeadlinePassed, QueueFull, StartFailed, Stopping, UnknownModel
from corral.scheduler.messages import (
    Adopted,
    Asked,
    BecameReady,
    Closed,
    Configured,
    Doubted,
    Ended,
    Left,
    Paused,
    Returned,
    StopAsked,
    Ticked,
)
from corral.scheduler.state import Policy, Spec
from support.scheduler_script import ONE, Script


def test_many_share_one_start() -> None:
    """Requests for a starting model share its start and are granted together, up to its capacity."""
    script = Script(Spec("a"))
    assert script.ask(1, "a") == ["start a.1"]
    assert script.ask(2, "a") == []
    assert script.ask(3, "a") == []
    assert script.ask(4, "a") == []
    assert script(BecameReady("a", 1), at=2.0) == ["grant 1 a", "grant 2 a", "grant 3 a"]
    assert script.grants[1].load_s == 2.0
    assert script(Returned(1, "a")) == ["grant 4 a"]


def test_a_load_goes_on_without_its_first_client() -> None:
    """When the client that caused a load leaves, the load goes on and serves the next one."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    assert script(Left(1)) == []
    assert script(BecameReady("a", 1)) == []
    assert script.ask(2, "a") == ["grant 2 a"]


def test_one_at_a_time() -> None:
    """Under max_active 1 the idle model is stopped, and only when it is gone does the other one start."""
    script = Script(Spec("a"), Spec("b"), policy=ONE)
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script.ask(2, "b") == [], "a is busy"
    assert script(Returned(1, "a"), at=5.0) == ["stop a.1"]
    assert script.ask(3, "b") == [], "a is not gone yet"
    assert script(Ended("a", 1), at=6.0) == ["start b.1"]
    assert script(BecameReady("b", 1), at=8.0) == ["grant 2 b", "grant 3 b"]
    assert (script.grants[2].swap_s, script.grants[2].load_s) == (1.0, 2.0)


def test_a_server_that_runs_already_takes_no_place() -> None:
    """Under max_active 1 it is used beside another model, exclusive or not; neither goes for the other."""
    script = Script(Spec("a", exclusive=True), Spec("s", elsewhere=True), policy=ONE)
    assert script.ask(1, "a") == ["start a.1"]
    assert script(BecameReady("a", 1)) == ["grant 1 a"]
    assert script.ask(2, "s") == ["start s.1"], "a is busy, and need not go"
    assert script(BecameReady("s", 1)) == ["grant 2 s"]
    assert script(Returned(1, "a"), at=5.0) == [] == script(Returned(2, "s"), at=6.0)


def test_a_server_that_runs_already_is_not_let_go_for_others() -> None:
    """To let it go would free nothing: idle for the longest as it is, the other one is stopped."""
    script = Script(Spec("s", elsewhere=True, pin=True), Spec("a"), Spec("b"), policy=ONE)
    script.ask(1, "s")
    script(BecameReady("s", 1))
    script(Returned(1, "s"), at=1.0)
    assert script.ask(2, "a") == ["start a.1"], "no place is taken by what is pinned there"
    script(BecameReady("a", 1), at=2.0)
    script(Returned(2, "a"), at=9.0)
    assert script.ask(3, "b") == ["stop a.1"]


def test_the_least_missed_goes_first() -> None:
    """Room is made by lowest priority, then by longest idle; the pinned stay."""
    script = Script(
        Spec("old"),
        Spec("low", priority=-1),
        Spec("new"),
        Spec("pinned", pin=True),
        Spec("x"),
        policy=Policy(max_active=4),
    )
    for waiter, name in enumerate(("pinned", "old", "low", "new"), 1):
        script.ask(waiter, name, at=float(waiter))
        script(BecameReady(name, 1))
        script(Returned(waiter, name))
    assert script.ask(9, "x", at=9.0) == ["stop low.1"]
    script(Ended("low", 1))
    script(BecameReady("x", 1))
    script(Returned(9, "x"))
    assert script.ask(10, "low", at=10.0) == ["stop old.1"]


def test_memory_is_kept_within_its_budget() -> None:
    """A model starts beside others when it fits, else as few as needed are stopped."""
    specs = [
        Spec(name, footprint={"gpu0": size}) for name, size in (("llm", 16), ("eye", 4), ("big", 18), ("huge", 30))
    ]
    script = Script(*specs, policy=Policy(budgets={"gpu0": 24}))
    for waiter, name in enumerate(("llm", "eye"), 1):
        assert script.ask(waiter, name) == [f"start {name}.1"]
        script(BecameReady(name, 1))
        script(Returned(waiter, name), at=float(waiter))
    assert script.ask(3, "big") == ["stop llm.1"], "18 + 4 fits"
    assert script.ask(4, "huge") == ["reject 4"]
    assert isinstance(script.errors[4], CannotFit)


def test_groups_and_exclusives() -> None:
    """Of one group one model is resident; an exclusive model stands alone."""
    script = Script(Spec("a", group="g"), Spec("b", group="g"), Spec("c"), Spec("x", exclusive=True))
    for waiter, name in enumerate(("a", "c"), 1):
        script.ask(waiter, name)
        script(BecameReady(name, 1))
        script(Returned(waiter, name))
    assert script.ask(3, "b") == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start b.1"]
    script(BecameReady("b", 1))
    assert script.ask(4, "x") == [], "b is busy"
    assert script(Returned(3, "b")) == ["stop b.1", "stop c.1"]


def test_nobody_starves() -> None:
    """A busy model's new requests stand back once a request for another has waited max_wait_s."""
    script = Script(Spec("a"), Spec("b"), policy=ONE)
    script.ask(1, "a")
    script(BecameReady("a", 1))
    script.ask(2, "b", at=1.0)
    assert script.ask(3, "a", at=2.0) == ["grant 3 a"]
    assert script.ask(4, "a", at=11.5) == [], "b has waited ten seconds"
    assert script(Returned(1, "a")) == []
    assert script(Returned(3, "a")) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start b.1"]


def test_idle_models_stop() -> None:
    """A model without leases stops after its idle time, not before, and a pinned one never."""
    script = Script(Spec("a", idle_timeout_s=5.0), Spec("p", idle_timeout_s=5.0, pin=True))
    for waiter, name in enumerate(("a", "p"), 1):
        script.ask(waiter, name, at=0.0)
        script(BecameReady(name, 1))
        script(Returned(waiter, name), at=10.0)
    assert script(Ticked(), at=14.9) == []
    assert script(Ticked(), at=15.0) == ["stop a.1"]


def test_a_full_queue_says_where_one_would_stand() -> None:
    """The queue is bounded; the refusal has the position and when to come back."""
    script = Script(Spec("a"), policy=Policy(max_queue=2))
    script.ask(1, "a")
    script.ask(2, "a")
    assert script.ask(3, "a") == ["reject 3"]
    refused = script.errors[3]
    assert isinstance(refused, QueueFull)
    assert refused.details["queue_position"] == 3
    assert refused.retry_after_s


def test_deadlines() -> None:
    """A request that waited until its deadline is refused; the others go on waiting."""
    script = Script(Spec("a"))
    script.ask(1, "a", deadline=5.0)
    script.ask(2, "a", deadline=50.0)
    assert script(Ticked(), at=5.0) == ["reject 1"]
    assert isinstance(script.errors[1], DeadlinePassed)
    assert script(BecameReady("a", 1)) == ["grant 2 a"]


def test_a_failed_start_answers_everybody_and_is_not_repeated_at_once() -> None:
    """All who wait get the reason; who comes before the back-off ends gets it too, with when to come back."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    script.ask(2, "a")
    failed = StartFailed("bad file", hint="look")
    assert script(Ended("a", 1, failed, 3.0), at=1.0) == ["reject 1", "reject 2"]
    assert script.ask(3, "a", at=2.0) == ["reject 3"]
    assert script.errors[3].message == "bad file"
    assert script.errors[3].retry_after_s == 1
    assert script.ask(4, "a", at=3.5) == ["start a.2"]


def test_an_explicit_start_does_not_wait_for_the_back_off() -> None:
    """`corral start` tries at once."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    script(Ended("a", 1, StartFailed("no"), 30.0))
    assert script(Asked(2, "a", 100.0, lease=False, force=True), at=1.0) == ["start a.2"]
    assert script(BecameReady("a", 2)) == ["grant 2 a"]
    assert script.ask(3, "a") == ["grant 3 a"], "the explicit start held no lease"


def test_a_crash_is_followed_by_a_start_for_those_who_wait() -> None:
    """After a crash waiting requests wait for the next start, which comes when its back-off ends."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script(Ended("a", 1, None, 2.0), at=1.0) == []
    assert script.ask(2, "a", at=1.5) == []
    assert script(Returned(1, "a")) == [], "a lease of the dead generation is of no account"
    assert script(Ticked(), at=2.0) == ["start a.2"]


def test_a_doubted_unit_gets_no_new_work() -> None:
    """After a dropped connection a unit gets no work until its end is known, or for a moment if it lives."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script(Doubted("a", 1)) == []
    assert script(Returned(1, "a")) == []
    assert script.ask(2, "a") == []
    assert script(Ticked(), at=0.2) == ["grant 2 a"]
    script(Doubted("a", 1))
    assert script.ask(3, "a") == []
    assert script(Ended("a", 1)) == ["start a.2"]
    assert script(BecameReady("a", 2)) == ["grant 3 a"]


def test_a_unit_that_passes_a_request_over_takes_no_new_work() -> None:
    """Until that request got on, or the unit ended; that it dropped a connection meanwhile makes no difference."""
    script = Script(Spec("a", slots=2), Spec("b"))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script(Paused("a", 1, True)) == []
    assert script.ask(2, "a") == []
    script(Doubted("a", 1))
    assert script(Ticked(), at=9.0) == []
    assert script(Paused("a", 7, False), at=9.0) == [], "another generation's"
    assert script(Paused("a", 1, False), at=9.0) == ["grant 2 a"]
    script(Paused("a", 1, True), at=9.5)
    assert script.ask(3, "a", at=9.5) == []
    assert script(Ended("a", 1), at=9.6) == ["start a.2"]
    assert script(BecameReady("a", 2), at=9.7) == ["grant 3 a"], "a new process passes nobody over"


def test_an_asked_stop_drains() -> None:
    """A stop lets running answers end, refuses those who wait, and does not wait for ever."""
    script = Script(Spec("a", slots=1), policy=Policy(drain_s=5.0))
    for waiter in (1, 2, 3, 4):
        script.ask(waiter, "a")
    script(BecameReady("a", 1))
    assert script(StopAsked("a", "why"), at=1.0) == ["reject 4", "drain a.1"]
    assert isinstance(script.errors[4], Stopping)
    assert script.ask(5, "a") == [], "no new work while draining"
    assert script(Returned(1, "a"), at=2.0) == []
    assert script(Ticked(), at=6.0) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start a.2"], "for 5"


def test_a_stop_ends_a_load() -> None:
    """A model that is still loading is stopped at once."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    assert script(StopAsked("a", "why")) == ["reject 1", "stop a.1"]
    assert script(Ended("a", 1)) == []


def test_changed_models_finish_and_come_back() -> None:
    """After a reload a changed model ends its answers and starts anew when asked; a removed one does not."""
    script = Script(Spec("a"), Spec("b"))
    for waiter, name in enumerate(("a", "b"), 1):
        script.ask(waiter, name)
        script(BecameReady(name, 1))
    changed = Configured({"a": Spec("a", slots=2), "c": Spec("c")}, Policy(), frozenset({"a"}))
    assert script(changed) == ["drain b.1", "drain a.1"]
    assert script.ask(3, "a") == []
    assert script.ask(4, "b") == ["reject 4"]
    assert isinstance(script.errors[4], UnknownModel)
    assert script(Returned(1, "a")) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start a.2"]
    assert script(Returned(2, "b")) == ["stop b.1"]
    script(Ended("b", 1))
    assert "b" not in script.state.places
    assert script.ask(5, "c") == ["start c.1"]


def test_adopted_engines_are_used() -> None:
    """An engine of an earlier daemon is ready at once, and its successor has the next number."""
    script = Script(Spec("a"))
    assert script(Adopted("a", 7)) == []
    assert script.ask(1, "a") == ["grant 1 a"]
    script(Ended("a", 7))
    assert script.ask(2, "a") == ["start a.8"]


def test_closing_refuses_all() -> None:
    """When Corral ends, who waits and who comes is told so; running leases go on."""
    script = Script(Spec("a"))
    for waiter in (1, 2, 3, 4):
        script.ask(waiter, "a")
    script(BecameReady("a", 1))
    assert script(Closed()) == ["reject 4"]
    assert script.ask(5, "a") == ["reject 5"]
    assert script(Returned(1, "a")) == []


def test_priority_is_served_first() -> None:
    """Of two models that wait for one place, the one with the higher priority gets it."""
    script = Script(Spec("a"), Spec("b"), Spec("vip", priority=5), policy=ONE)
    script.ask(1, "a")
    script(BecameReady("a", 1))
    script.ask(2, "b", at=1.0)
    script.ask(3, "vip", at=2.0)
    assert script(Returned(1, "a")) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start vip.1"]
