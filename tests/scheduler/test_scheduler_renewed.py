"""A unit that is to be another process: when a GPU that it did without is there again."""

from __future__ import annotations

from corral.errors import StartFailed
from corral.scheduler.messages import Asked, BecameReady, Configured, Ended, Mended, Returned, StopAsked, Ticked
from corral.scheduler.state import Policy, Spec
from support.scheduler_script import Script


def test_only_that_unit_ends_and_nobody_is_refused() -> None:
    """What it does is let end first, and who waits meanwhile waits for a unit."""
    script = Script(Spec("a"), Spec("b"))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script(StopAsked("a", "a GPU is there again", anew=True)) == ["drain a.1"]
    assert script(Asked(2, "a", 1000.0)) == []
    assert script(Returned(1, "a")) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start a.2"]
    assert script(BecameReady("a", 2)) == ["grant 2 a"]
    assert not script.errors
    assert not script.state.places["a"].dismissed


def test_a_replica_goes_on() -> None:
    """Of two units only the one that was named ends."""
    script = Script()
    script(Configured({"a": Spec("a", replicas=2)}, Policy()))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script.ask(2, "a") == ["start a~2.1"]
    script(BecameReady("a~2", 1))
    assert script(StopAsked("a~2", "a GPU is there again", anew=True)) == ["drain a~2.1"]
    assert script(Returned(2, "a~2")) == ["stop a~2.1"]
    assert script(Asked(3, "a", 1000.0)) == []
    assert script(Returned(1, "a")) == ["grant 3 a"]


def test_one_that_must_go_soon_does_not_wait_for_long_answers() -> None:
    """With a bound, its answers have so much time and no more; who waits is served by the next one."""
    script = Script(Spec("a"))
    script.ask(1, "a")
    script(BecameReady("a", 1))
    assert script(StopAsked("a", "it has no memory left", anew=True, within_s=5.0), at=1.0) == ["drain a.1"]
    assert script(Asked(2, "a", 1000.0), at=2.0) == []
    assert script(Ticked(), at=5.9) == []
    assert script(Ticked(), at=6.0) == ["stop a.1"]
    assert script(Ended("a", 1)) == ["start a.2"]


def test_what_was_mended_need_not_wait() -> None:
    """A failed start is refused until its next try; once its cause is gone, whoever asks starts it."""
    script = Script(Spec("a"), Spec("b"))
    assert script.ask(1, "a") == ["start a.1"]
    assert script(Ended("a", 1, StartFailed("no"), 100.0)) == ["reject 1"]
    assert script.ask(2, "a", at=1.0) == ["reject 2"]
    assert script(Mended("b"), at=2.0) == []
    assert script.ask(3, "a", at=3.0) == ["reject 3"]
    assert script(Mended("a"), at=4.0) == []
    assert script.ask(4, "a", at=5.0) == ["start a.2"]
