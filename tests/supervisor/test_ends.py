"""Ends that were foreseen, ends that no request is to blame for, and files that were mended after one."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from corral import clock
from corral.config.paths import Paths
from support.fake_adapter import FakeAdapter
from support.unit_world import world

STARVED = "decode() failed: std::bad_alloc"


class Smaller(FakeAdapter):
    rungs = ("batch",)


async def test_a_unit_that_ails_ends_like_one_that_ran_out_of_memory(paths: Paths) -> None:
    """Its stop counts as a failure for want of memory: the next start is by a smaller plan, at once; that is told."""
    async with world(paths, adapter=Smaller()) as w:
        await w.unit.start(w.model, 1)
        why = w.unit.ails(1, STARVED)
        assert why is not None and "memory" in why
        assert w.unit.ails(1, STARVED) is None
        assert w.unit.ails(2, STARVED) is None
        w.unit.drain(why)
        await w.unit.stop(why)
        await w.told.until(lambda: bool(w.told.ended))
        assert w.told.ended[0][:3] == ("m", 1, None)
        assert w.states()[-2:] == ["draining", "backoff"]
        assert await w.unit.blameless(1, 0.0)
        await w.unit.start(w.model, 2)
        assert w.unit.plan is not None and w.unit.plan.step.batch == 1
        assert [event.kind for event in w.events.since() if event.kind in ("unit.ails", "unit.fallback")] == [
            "unit.ails",
            "unit.fallback",
        ]


async def test_ailing_again_and_again_is_no_loop(paths: Paths) -> None:
    """With nothing left to make smaller, each further time is followed by a longer pause."""
    async with world(paths) as w:
        pauses = []
        for generation in (1, 2, 3):
            await w.unit.start(w.model, generation)
            why = w.unit.ails(generation, STARVED)
            assert why is not None
            await w.unit.stop(why)
            await w.unit.wait_stopped()
            pauses.append(w.told.ended[-1][3] - clock.monotonic())
        assert pauses[0] <= 0 < pauses[1] < pauses[2]


async def test_a_stop_for_another_reason_is_a_stop(paths: Paths) -> None:
    """Somebody who stops an ailing unit has it stopped."""
    async with world(paths) as w:
        await w.unit.start(w.model, 1)
        assert w.unit.ails(1, STARVED)
        await w.unit.stop("enough")
        assert w.state == "stopped"


@pytest.mark.parametrize(("number", "blameless"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
async def test_whose_doing_an_end_was(paths: Paths, number: signal.Signals, blameless: bool) -> None:
    """A kill from outside is nobody's fault here; a crash may be a request's. It is known as soon as the end is."""
    async with world(paths) as w:
        await w.unit.start(w.model, 1)
        assert await w.unit.blameless(1, 0.0)  # it lives
        asking = asyncio.create_task(w.unit.blameless(1, 10.0))
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, number)
        assert await asking is blameless
        assert not await w.unit.blameless(7, 0.0)


async def test_a_file_that_was_mended_is_seen(paths: Paths, tmp_path: Path) -> None:
    """Written to, or another file under its name: either way a failed start may be tried again."""
    source = tmp_path / "m.gguf"
    source.write_bytes(b"broken")
    async with world(paths, "--exit-code", "3") as w:
        await w.unit.start(replace(w.model, source=source), 1)
        assert w.state == "backoff"
        assert not w.unit.mended()
        other = tmp_path / "other"
        other.write_bytes(b"broken")
        other.replace(source)
        assert w.unit.mended()
