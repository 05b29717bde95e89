"""Who leaves the line in the moment in which its turn has come, through the scheduler's loop and a real warden."""

from __future__ import annotations

import asyncio

import pytest

from corral import clock
from corral.config.paths import Paths
from corral.scheduler.lease import Held
from corral.scheduler.messages import MemorySeen
from corral.scheduler.state import Policy
from scheduler.test_scheduler_looks import scheduling


async def look() -> MemorySeen:
    return MemorySeen({"gpu0": 1000}, {"gpu0": 1000}, clock.monotonic())


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_what_is_granted_to_one_who_leaves_is_given_back(paths: Paths, leaves_first: bool) -> None:
    """A lease is granted to a waiter in the same turn of the event loop in which its request is cancelled: before that,
    or after it, when the waiter has not run yet. Either way nobody holds it then."""
    async with scheduling(paths, look, Policy(headroom=0)) as parts:
        scheduler = parts.scheduler
        await scheduler.ensure_ready("one")
        held: list[Held] = []
        while (one := scheduler.try_lease("one")) is not None:
            held.append(one)

        async def ask() -> None:
            async with scheduler.lease("one"):
                await asyncio.Event().wait()

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        assert scheduler.waiting == 1
        if leaves_first:
            asking.cancel()
            held.pop().give_back()
        else:
            held.pop().give_back()
            asking.cancel()
        assert scheduler.waiting == 0
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert scheduler.in_flight == len(held)
        for one in held:
            one.give_back()
        assert scheduler.in_flight == 0
