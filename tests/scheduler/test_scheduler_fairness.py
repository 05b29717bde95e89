"""Who is served when: keys, places in line, turns, eviction, keep-alive, schedules, replicas; as scripts."""

from __future__ import annotations

from corral.config.settings import Window
from corral.errors import DeadlinePassed
from corral.scheduler.expect import expected_wait_s, place_in_line
from corral.scheduler.hours import kept_now, wanted
from corral.scheduler.messages import Asked, BecameReady, Configured, Ended, Returned, Scheduled, StopAsked, Ticked
from corral.scheduler.state import INFINITY, Keep, Policy, Spec
from support.scheduler_script import ONE, Script


def test_keys_take_turns() -> None:
    """A hundred requests of one key delay another key's single one by no more than one grant."""
    script = Script(Spec("a"))
    for waiter in range(1, 101):
        script(Asked(waiter, "a", 1000.0, key="hog"))
    script(BecameReady("a", 1), at=1.0)
    script(Asked(200, "a", 1000.0, key="polite"))
    script(Asked(201, "a", 1000.0, key="third"))
    polite = script.state.waiters[200]
    assert place_in_line(script.state, polite) == polite.position == 2
    assert script(Returned(1, "a")) == ["grant 4 a"]
    assert script(Returned(2, "a")) == ["grant 200 a"]
    assert script.grants[200].position == 2
    assert script(Returned(3, "a")) == ["grant 201 a"]
    assert script(Returned(200, "a")) == ["grant 5 a"]


def test_places_in_line_are_turns() -> None:
    """The place in line counts the turns of all keys, and is what the grants then follow."""
    script = Script(Spec("a"))
    asked = ["x", "x", "y", "x", "z", "y", "x"]
    for waiter, key in enumerate(asked, 1):
        script(Asked(waiter, "a", 1000.0, key=key))
    places = {waiter.id: place_in_line(script.state, waiter) for waiter in script.state.waiters.values()}
    assert sorted(places.values()) == list(range(1, 8))
    order = [int(word.split()[1]) for word in script(BecameReady("a", 1))]
    for _ in asked:
        order += [int(word.split()[1]) for word in script(Returned(order[0], "a"))]
        order.append(order.pop(0))
    assert sorted(places, key=lambda each: places[each])[:3] == [1, 3, 5]


def test_a_deadline_says_where_one_stood() -> None:
    """Who waited too long learns the place in line, what to expect, and when to try again."""
    script = Script(Spec("a"))
    for waiter in range(1, 7):
        script.ask(waiter, "a", deadline=10.0 if waiter == 6 else 100.0)
    script(BecameReady("a", 1), at=2.0)
    script(Ticked(), at=10.0)
    error = script.errors[6]
    assert isinstance(error, DeadlinePassed)
    assert error.details["queue_position"] == 3
    assert error.details["expected_wait_s"] > 0 and error.retry_after_s
    assert "its unit is busy, and the request was number 3 in line" in error.message


def test_expected_waits_come_from_measured_loads() -> None:
    """Before a start the wait is as long as loads usually take; while it loads, what is left of that."""
    script = Script(Spec("a", idle_timeout_s=None))
    script.ask(1, "a")
    script(BecameReady("a", 1), at=8.0)
    script(Returned(1, "a"), at=8.1)
    script(StopAsked("a", "asked"), at=9.0)
    script(Ended("a", 1), at=9.5)
    place = script.state.places["a"]
    assert expected_wait_s(script.state, place, 10.0) == 8.0
    script.ask(2, "a", at=10.0)
    assert expected_wait_s(script.state, place, 13.0, turn=1) == 5.0


def test_who_made_room_waits_behind_those_it_made_room_for() -> None:
    """A model that yielded to another is not started again before that one, however old its requests are."""
    script = Script(Spec("a", slots=1), Spec("b"), policy=ONE)
    for waiter in range(1, 41):
        script.ask(waiter, "a")
    script(BecameReady("a", 1), at=1.0)
    script.ask(50, "b", at=2.0)
    assert script(Returned(1, "a"), at=11.0) == ["grant 4 a"]
    assert script(Returned(2, "a"), at=12.5) == [], "b has waited for ten seconds"
    script(Returned(3, "a"))
    assert script(Returned(4, "a"), at=13.0) == ["stop a.1"]
    assert script(Ended("a", 1), at=13.5) == ["start b.1"]
    assert script(BecameReady("b", 1), at=15.0) == ["grant 50 b"]
    assert script(Returned(50, "b"), at=16.0) == [], "b has its moment"
    assert script(Ticked(), at=17.0) == ["stop b.1"]


def test_a_contended_unit_stays_for_a_moment() -> None:
    """A unit just loaded is not stopped for a request that came while it loaded before it served for min_residency; one
    that finds it idle does not wait."""
    script = Script(Spec("a"), Spec("b"), policy=ONE)
    script.ask(1, "a")
    script.ask(2, "b", at=1.0)
    script(BecameReady("a", 1), at=3.0)
    assert script(Returned(1, "a"), at=3.5) == []
    assert script.ask(3, "a", at=4.0) == ["grant 3 a"], "its client comes again"
    assert script(Returned(3, "a"), at=4.5) == []
    assert script(Ticked(), at=5.0) == ["stop a.1"]
    script(Ended("a", 1), at=5.1)
    script(BecameReady("b", 2 - 1), at=8.0)
    script(Returned(2, "b"), at=8.2)
    assert script.ask(4, "a", at=8.3) == ["stop b.1"], "it found b idle"


def test_the_cheapest_goes_and_no_more_than_needed() -> None:
    """One that suffices goes before several, a quick reload before a slow one, long idle before just used; who turns
    out not to be needed stays."""
    specs = [Spec(name, footprint={"gpu0": size}, idle_timeout_s=None) for name, size in
             (("slow", 6), ("quick", 6), ("tiny", 2), ("x", 6))]  # fmt: skip
    script = Script(*specs, policy=Policy(budgets={"gpu0": 14}))
    at = 0.0
    for waiter, (name, load_s) in enumerate((("slow", 60.0), ("quick", 2.0), ("tiny", 1.0)), 1):
        script.ask(waiter, name, at=at)
        at += load_s
        script(BecameReady(name, 1), at=at)
        script(Returned(waiter, name))
    assert script.ask(9, "x", at=at + 100.0) == ["stop quick.1"], "slow has been idle for longer, but costs more"


def test_a_request_says_how_long_its_model_stays() -> None:
    """keep_alive 0 stops the unit after that request; infinite pins it, until another request says otherwise."""
    script = Script(Spec("a", idle_timeout_s=300.0), Spec("b"), policy=ONE)
    script(Asked(1, "a", 1000.0, keep_s=0.0))
    script(BecameReady("a", 1), at=1.0)
    script(Returned(1, "a"), at=2.0)
    assert script(Ticked(), at=2.0) == ["stop a.1"]
    script(Ended("a", 1), at=3.0)
    script(Asked(2, "a", 1000.0, keep_s=INFINITY))
    script(BecameReady("a", 2), at=4.0)
    script(Returned(2, "a"), at=5.0)
    assert script(Ticked(), at=5000.0) == []
    assert script.ask(3, "b", deadline=9000.0) == ["reject 3"]
    assert "pinned" in script.errors[3].message
    script(Asked(4, "a", 9000.0, keep_s=10.0), at=6000.0)
    script(Returned(4, "a"))
    assert script(Ticked(), at=6010.0) == ["stop a.2"]


def test_the_default_comes_back() -> None:
    """The default model returns when nothing was asked for so long, is not stopped for being idle, and stays away when
    somebody stopped it."""
    policy = Policy(max_active=1, default_model="a", return_s=60.0)
    script = Script(Spec("a", idle_timeout_s=5.0), Spec("b", idle_timeout_s=None), policy=policy)
    assert script(Ticked(), at=59.0) == []
    assert script(Ticked(), at=60.0) == ["start a.1"]
    script(BecameReady("a", 1), at=61.0)
    assert script(Ticked(), at=1000.0) == []
    assert script.ask(1, "b", deadline=2000.0) == ["stop a.1"]
    script(Ended("a", 1))
    script(BecameReady("b", 1), at=1001.0)
    script(Returned(1, "b"), at=1002.0)
    assert script(Ticked(), at=1061.0) == []
    assert script(Ticked(), at=1062.0) == ["stop b.1"]
    assert script(Ended("b", 1)) == ["start a.2"]
    script(BecameReady("a", 2))
    assert script(StopAsked("a", "asked")) == ["stop a.2"]
    script(Ended("a", 2))
    assert script(Ticked(), at=5000.0) == []


def test_schedules_keep_models() -> None:
    """A scheduled model is started into free room, not stopped for being idle, makes way for requests if it is only
    kept ready, and comes back when that room was idle for a minute."""
    script = Script(Spec("a", idle_timeout_s=5.0), Spec("b", idle_timeout_s=30.0), policy=ONE)
    assert script(Scheduled({"a": Keep.READY}), at=1.0) == ["start a.1"]
    script(BecameReady("a", 1), at=2.0)
    assert script(Ticked(), at=100.0) == []
    assert script.ask(1, "b") == ["stop a.1"]
    script(Ended("a", 1))
    script(BecameReady("b", 1), at=101.0)
    script(Returned(1, "b"))
    assert script(Ticked(), at=131.0) == ["stop b.1"]
    assert script(Ended("b", 1)) == ["start a.2"]
    script(BecameReady("a", 2), at=132.0)
    script(Scheduled({"a": Keep.PIN}))
    assert script.ask(2, "b") == ["reject 2"], "pinned by its schedule"
    script(Scheduled({}), at=140.0)
    assert script(Ticked(), at=145.0) == ["stop a.2"]


def test_windows_of_the_week() -> None:
    """A window holds on its days between its times; one that ends before it begins goes on into the next day."""
    office, night = Window((0, 1, 2, 3, 4), 480, 1080), Window((4,), 1320, 360, "pin")
    assert wanted([office], 0, 479) is None
    assert wanted([office], 0, 480) is Keep.READY
    assert wanted([office], 0, 1080) is None
    assert wanted([office], 5, 600) is None
    assert wanted([office, night], 4, 1330) is Keep.PIN
    assert wanted([night], 5, 359) is Keep.PIN
    assert wanted([night], 5, 360) is None
    assert wanted([night], 4, 100) is None
    specs = {"a": Spec("a", schedule=(office,)), "b": Spec("b")}
    assert kept_now(specs, 2, 700) == {"a": Keep.READY}


def test_replicas_share_their_line() -> None:
    """A further replica starts when those that run are full; leases go to the least loaded; one that dies leaves its
    fellow serving, and fewer of them drain."""
    two = Spec("a", slots=2, replicas=2, idle_timeout_s=None)
    script = Script(Spec("a"), policy=Policy(max_active=2))
    script(Configured({"a": two}, script.state.policy))
    assert script.ask(1, "a") == ["start a.1"]
    for waiter in (2, 3):
        assert script.ask(waiter, "a") == []
    assert script(BecameReady("a", 1), at=1.0) == ["grant 1 a", "grant 2 a", "start a~2.1"]
    assert script(BecameReady("a~2", 1), at=2.0) == ["grant 3 a~2"]
    assert script.ask(4, "a") == ["grant 4 a~2"]
    assert script(Ended("a", 1, None, 3.0)) == []
    assert script.ask(5, "a") == [], "no slot is free, and a is not tried again yet"
    assert script(Ticked(), at=3.0) == ["start a.2"]
    assert script(BecameReady("a", 2)) == ["grant 5 a"]
    assert script(Configured({"a": Spec("a", slots=2)}, script.state.policy)) == ["drain a~2.1"]
    assert script(Returned(3, "a~2")) == []
    assert script(Returned(4, "a~2")) == ["stop a~2.1"]
    assert script(Ended("a~2", 1)) == []
    assert "a~2" not in script.state.places
