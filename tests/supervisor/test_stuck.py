"""Engines that stop doing anything while they load."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from corral.config.paths import Paths
from corral.config.settings import Timeouts
from corral.supervisor.stuck import until_stuck
from support.unit_world import world

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")

WORKS = "import time\nwhile True: open('/dev/zero', 'rb').read(4096); time.sleep(0.01)"


@contextmanager
def child(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def stuck(pid: int, hang_s: float, within_s: float) -> str:
    """Empty when it was not, as long as it was looked at."""
    try:
        async with asyncio.timeout(within_s):
            return await until_stuck(pid, hang_s)
    except TimeoutError:
        return ""


async def test_a_process_that_does_nothing_is_stuck() -> None:
    """One that is stopped is told of with the time it did nothing; one that works is not, a little at a time or in a
    child of its own."""
    in_a_child = ("/bin/sh", "-c", f'{sys.executable} -c "$0"; true', WORKS)
    with child(sys.executable, "-c", WORKS) as process, child(*in_a_child) as parent:
        both = (stuck(each.pid, 0.4, within_s=1.5) for each in (process, parent))
        assert await asyncio.gather(*both) == ["", ""]
        process.send_signal(signal.SIGSTOP)
        assert "did nothing at all" in await stuck(process.pid, 0.4, within_s=20)


async def test_one_that_is_not_there_is_not_stuck() -> None:
    """Its end is told by others."""
    with child("/bin/true") as process:
        process.wait()
        assert await stuck(process.pid, 0.1, within_s=0.5) == ""


async def test_a_load_that_hangs_is_broken_off_and_tried_again(paths: Paths) -> None:
    """Long before the start timeout, the engine is killed, its unit says that it hung, and nobody's request fails."""
    async with world(paths, "--listen-after-s", "3600", timeouts=Timeouts(start_s=300, stop_s=60, hang_s=0.5)) as w:
        await w.unit.start(w.model, 1)
        [(_, _, error, _)] = w.told.ended
        assert error is None
        assert w.state == "backoff"
        assert "hung" in (w.unit.reason or "")
        assert "unit.hung" in [event.kind for event in w.events.since()]
