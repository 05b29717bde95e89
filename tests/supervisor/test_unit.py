"""A unit's life, with a real warden and real processes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import Timeouts
from corral.engines.adapter import Start
from corral.engines.plan import LaunchPlan
from corral.runners import link as links
from corral.runners.process import ProcessRunner
from corral.supervisor.machine import State
from support.engines import until
from support.fake_adapter import FakeAdapter
from support.unit_world import world


async def test_it_comes_up_and_goes_down(paths: Paths) -> None:
    """A start ends ready, a stop ends stopped, each step is an event, and the socket is gone afterwards."""
    async with world(paths, "--load-s", "0.05") as w:
        await w.unit.start(w.model, 1)
        assert w.told.ready == [("m", 1)]
        assert w.state == "ready"
        assert w.unit.load_ms is not None and w.unit.load_ms >= 50
        assert (memory := w.unit.memory_bytes()) is None or memory > 1 << 20
        socket = w.unit.endpoint.socket
        assert socket is not None and socket.exists()
        await w.unit.stop("enough")
        assert w.told.ended == [("m", 1, None, 0.0)]
        assert not socket.exists()
        assert w.states() == ["starting", "loading", "ready", "stopping", "stopped"]


async def test_an_early_end_is_told_in_words(paths: Paths) -> None:
    """A process that ends while loading fails the start with its exit code and its last lines, and backs off."""
    async with world(paths, "--say", "cannot do it", "--exit-code", "3") as w:
        await w.unit.start(w.model, 1)
        [(_, _, error, retry_at)] = w.told.ended
        assert error is not None
        assert "3" in error.message
        assert "cannot do it" in error.details["log_tail"]
        assert error.hint
        assert retry_at > clock.monotonic()
        assert w.state == "backoff"


async def test_a_load_that_never_ends_is_ended(paths: Paths) -> None:
    """An engine that is not ready within the start timeout is stopped, and the error says which limit it was."""
    async with world(paths, "--load-s", "3600", timeouts=Timeouts(start_s=0.3, stop_s=1)) as w:
        await w.unit.start(w.model, 1)
        [(_, _, error, _)] = w.told.ended
        assert error is not None and "not ready within" in error.message and "timeouts.start" in error.hint
        assert w.unit.running is None


async def test_a_crash_is_noticed(paths: Paths) -> None:
    """A ready engine that is killed is reported at once, with the signal in words; its first restart need not wait."""
    async with world(paths) as w:
        await w.unit.start(w.model, 1)
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGKILL)
        await w.told.until(lambda: bool(w.told.ended))
        [(_, _, error, retry_at)] = w.told.ended
        assert error is None
        assert retry_at <= clock.monotonic()
        assert w.state == "backoff"
        assert w.unit.restarts == 0  # nobody has started it again
        assert "SIGKILL" in (w.unit.reason or "")
        await w.unit.start(w.model, 2)
        assert w.state == "ready"
        assert w.unit.name == "m.2" and w.unit.restarts == 1


async def test_a_start_that_is_broken_off_is_tried_again(paths: Paths) -> None:
    """An engine that is killed while it loads fails nobody's request and may be started again at once; from the fourth
    time in a row on it counts as a start that failed."""
    async with world(paths, "--load-s", "3600") as w:
        for generation in (1, 2, 3, 4):
            start = asyncio.create_task(w.unit.start(w.model, generation))
            await until(lambda: w.state == "loading", "the load")
            assert w.unit.running is not None and w.unit.running.pid is not None
            os.kill(w.unit.running.pid, signal.SIGKILL)
            await start
            assert w.state == "backoff"
        errors = [error for _, _, error, _ in w.told.ended]
        assert errors[:3] == [None, None, None]
        assert errors[3] is not None and "SIGKILL" in errors[3].message
        assert w.told.ended[0][3] <= clock.monotonic()


async def test_a_stop_may_meet_a_crash(paths: Paths) -> None:
    """An engine that dies in the moment it is to be stopped counts as stopped, whoever hears of it first."""
    async with world(paths) as w:
        await w.unit.start(w.model, 1)
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGKILL)
        await w.unit.running.wait()
        assert w.state == "ready"  # why it ended is still being looked for
        await w.unit.stop("enough")
        assert w.state == "stopped"
        assert w.told.ended == [("m", 1, None, 0.0)]
        await w.unit.start(w.model, 2)
        assert w.state == "ready"


class _Broken(FakeAdapter):
    """Fails as no adapter should."""

    def plan(self, start: Start) -> LaunchPlan:
        raise RuntimeError("can't start new thread")


async def test_a_bug_leaves_no_unit_between_two_states(paths: Paths) -> None:
    """An error nobody foresaw fails the start as any other does: the next start and a stop go on as usual."""
    async with world(paths, adapter=_Broken()) as w:
        for generation in (1, 2):
            await w.unit.start(w.model, generation)
            assert w.state == "backoff"
        error = w.told.ended[1][2]
        assert error is not None and error.code == "bug" and "can't start new thread" in error.message
        assert "bug" in [event.kind for event in w.events.since()]
        await w.unit.stop("enough")
        assert w.state == "stopped"


async def test_a_stop_does_not_wait_for_ever(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can end the engine (the warden hangs), a stop says so and returns; the end is told when it comes."""
    monkeypatch.setattr(links, "ANSWER_WITHIN_S", 0.1)
    async with world(paths, timeouts=Timeouts(start_s=10, stop_s=0.1)) as w:
        await w.unit.start(w.model, 1)
        os.kill(w.link.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                await w.unit.stop("enough")
            assert w.state == "stopping"
            assert "has not ended" in w.events.since()[-1].text
        finally:
            os.kill(w.link.pid, signal.SIGCONT)
        await w.told.until(lambda: bool(w.told.ended))
        assert w.state == "stopped"


async def test_failing_again_and_again_ends_in_failed(paths: Paths) -> None:
    """Six failures in a row end in failed; an asked stop forgets them."""
    async with world(paths, "--exit-code", "1") as w:
        for generation in range(1, 7):
            await w.unit.start(w.model, generation)
        assert w.state == "failed"
        await w.unit.stop("give it another chance")
        assert w.state == "stopped"


@pytest.mark.parametrize("args", [(), ("--load-s", "3600"), ("--listen-after-s", "3600")])
async def test_a_start_can_be_stopped_at_any_time(paths: Paths, args: tuple[str, ...]) -> None:
    """A stop asked while the engine starts ends it; nothing is left, and it counts as stopped, not failed."""
    async with world(paths, *args) as w:
        for generation, wait_for in ((1, State.STARTING), (2, State.LOADING)):
            starting = asyncio.create_task(w.unit.start(w.model, generation))
            while w.unit.state is not wait_for:
                await asyncio.sleep(0)
                if starting.done():
                    break
            await w.unit.stop("never mind")
            await starting
            assert w.state == "stopped"
            assert w.unit.running is None


async def test_term_ignored_means_kill(paths: Paths) -> None:
    """An engine that ignores TERM is killed after the stop timeout."""
    async with world(paths, "--ignore-term", timeouts=Timeouts(start_s=10, stop_s=0.2)) as w:
        await w.unit.start(w.model, 1)
        await w.unit.stop("enough")
        assert w.state == "stopped"
        assert "signal 9" in (w.unit.reason or "")


async def test_the_warden_killed_means_the_units_are_gone(paths: Paths) -> None:
    """When the warden is killed its engines are too, and the unit can be started again under a new one."""
    async with world(paths) as w:
        await w.unit.start(w.model, 1)
        os.kill(w.link.pid, signal.SIGKILL)
        await w.told.until(lambda: bool(w.told.ended))
        await w.unit.start(w.model, 2)
        assert w.state == "ready"
        await w.unit.stop("enough")
        runner = w.unit._means.runners["process"]
        assert isinstance(runner, ProcessRunner)
        await runner.link.shutdown(1.0)
        await runner.link.aclose()
