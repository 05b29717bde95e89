"""Starts that are planned before anybody goes for them."""

from __future__ import annotations

import pytest

from corral.errors import StartFailed
from corral.scheduler.messages import BecameReady, Configured, Ended, Left, Planned, Returned, StopAsked
from corral.scheduler.state import Keep, Phase, Spec
from support.scheduler_script import ONE, Script

A, B = Spec("a", idle_timeout_s=None), Spec("b", idle_timeout_s=None)
WRONG = StartFailed("there is no such file")


@pytest.fixture
def script() -> Script:
    """`a` is there and idle; only one may be."""
    script = Script(A, B, policy=ONE, plans=True)
    assert script.ask(1, "a") == ["start a.1"], "what displaces nobody is planned by its start"
    assert script(BecameReady("a", 1)) == ["grant 1 a"]
    assert script(Returned(1, "a")) == []
    return script


def test_others_go_once_there_is_a_plan(script: Script) -> None:
    """It is asked for once, however many wait; then the other is stopped, and the start needs no second one."""
    assert script.ask(2, "b") == ["plan b.1"]
    assert script.ask(3, "b") == []
    assert script(Planned("b", 1)) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start b.1"]
    assert script(BecameReady("b", 1)) == ["grant 2 b", "grant 3 b"]


def test_nobody_goes_where_there_is_none(script: Script) -> None:
    """All who wait are told, those that come soon too, and the next try is planned anew."""
    script.ask(2, "b")
    script.ask(3, "b")
    assert script(Ended("b", 1, WRONG, script.now + 5.0)) == ["reject 2", "reject 3"]
    assert script.errors[2] is WRONG
    assert script.ask(4, "b", at=script.now + 1.0) == ["reject 4"]
    assert script.ask(5, "b", at=script.now + 6.0) == ["plan b.2"]
    assert script.state.places["a"].phase is Phase.READY


def test_a_busy_one_is_not_waited_for(script: Script) -> None:
    """Whether there is a plan is found out while the other still works."""
    assert script.ask(2, "a") == ["grant 2 a"]
    assert script.ask(3, "b") == ["plan b.1"]
    assert script(Ended("b", 1, WRONG, script.now + 5.0)) == ["reject 3"]
    assert script.state.places["a"].leases


def test_it_is_not_started_while_it_is_planned(script: Script) -> None:
    """Room that comes free by itself is taken once the plan is known, so that a start and its plan never cross."""
    assert script.ask(2, "b") == ["plan b.1"]
    assert script(StopAsked("a", "asked")) == ["stop a.1"]
    assert script(Ended("a", 1)) == []
    assert script(Planned("b", 1)) == ["start b.1"]


def test_who_leaves_leaves_no_plan_behind(script: Script) -> None:
    """A plan for somebody who left stops nobody, and is not taken for that of the next."""
    assert script.ask(2, "b") == ["plan b.1"]
    assert script(Left(2)) == []
    assert script(Planned("b", 1)) == []
    assert script.ask(3, "b") == ["plan b.1"]


def test_a_changed_configuration_is_planned_anew(script: Script) -> None:
    """What was planned by the old settings says nothing about the new ones."""
    assert script.ask(2, "a") == ["grant 2 a"]
    assert script.ask(3, "b") == ["plan b.1"]
    assert script(Planned("b", 1)) == []
    assert script(Configured({"a": A, "b": B}, ONE, frozenset({"b"}))) == ["plan b.1"]


def test_a_wish_displaces_nobody_for_what_cannot_start() -> None:
    """What a schedule wants is planned too before an idle model goes for it."""
    script = Script(A, B, policy=ONE, plans=True)
    script.ask(1, "a")
    script(BecameReady("a", 1))
    script(Returned(1, "a"))
    script.state.places["b"].kept = Keep.READY
    script.now = 1000.0
    assert script(Left(99)) == ["plan b.1"]
    assert script(Ended("b", 1, WRONG, script.now + 5.0)) == []
    assert script.state.places["a"].phase is Phase.READY
