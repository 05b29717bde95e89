"""Pictures of several requests go through the model together, and whoever is alone waits for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from corral.detector.batches import MOST_WAITING, Batches, Seen, Waiting


class Model:
    """Says of each picture its own number; `hold` has it wait inside."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.inside = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.fails = False

    def run(self, batch: Any) -> tuple[Any, Any]:
        self.batches.append([float(each[0, 0, 0]) for each in batch])
        self.inside.set()
        assert self.free.wait(20)
        if self.fails:
            raise RuntimeError("no memory")
        return batch[:, 0, :, :1], batch[:, 0, :1, :]


def picture(number: float) -> Any:
    return np.full((3, 1, 1), number, np.float32)


@asynccontextmanager
async def at_work(model: Model, **more: Any) -> AsyncIterator[Batches]:
    settings: dict[str, Any] = {"largest": 4, "window_s": 5.0, "stuck_s": 60.0, "stuck": lambda: None}
    batches = Batches(model.run, **settings | more)
    worker = asyncio.create_task(batches.work())
    try:
        yield batches
    finally:
        model.free.set()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        batches.close()


async def busy(model: Model, batches: Batches) -> Waiting:
    """A picture that is inside the model, which is held."""
    model.free.clear()
    first = batches.put(picture(-1))
    assert await asyncio.to_thread(model.inside.wait, 20)
    return first


async def seen(waiting: Waiting) -> Seen:
    return await asyncio.wait_for(waiting.seen, 20)


async def test_alone() -> None:
    """With nobody else on the way, a picture does not wait for the window, however long it is."""
    model = Model()
    async with at_work(model, window_s=3600.0) as batches:
        found = await seen(batches.put(picture(7)))
    assert (found.batch, float(found.logits[0, 0]), model.batches) == (1, 7.0, [[7.0]])


async def test_together() -> None:
    """What came while the model was busy goes together, in order, and each gets its own answer."""
    model = Model()
    async with at_work(model) as batches:
        first = await busy(model, batches)
        rest = [batches.put(picture(number)) for number in range(6)]
        model.free.set()
        assert (await seen(first)).batch == 1
        found = [await seen(each) for each in rest]
    assert model.batches == [[-1], [0, 1, 2, 3], [4, 5]]
    assert [float(each.logits[0, 0]) for each in found] == [0, 1, 2, 3, 4, 5]
    assert (batches.batches, batches.pictures) == (3, 7)


async def test_waits_for_those_on_their_way() -> None:
    """A batch waits while others are coming, and no longer than until the last of them is there."""
    model = Model()
    async with at_work(model, window_s=3600.0) as batches:
        batches.expect(2)
        one = batches.put(picture(1))
        await asyncio.sleep(0.05)
        assert model.batches == []
        batches.came()
        two = batches.put(picture(2))
        await asyncio.sleep(0.05)
        assert model.batches == []
        batches.came()  # the second will not come
        assert {(await seen(one)).batch, (await seen(two)).batch} == {2}


async def test_window() -> None:
    """Who is on the way for too long is not waited for."""
    model = Model()
    async with at_work(model, window_s=0.01) as batches:
        batches.expect(1)
        assert (await seen(batches.put(picture(1)))).batch == 1
        batches.came()


async def test_full() -> None:
    """A full batch waits for nobody."""
    model = Model()
    async with at_work(model, window_s=3600.0) as batches:
        batches.expect(9)
        found = [batches.put(picture(number)) for number in range(4)]
        assert [(await seen(each)).batch for each in found] == [4, 4, 4, 4]


async def test_dropped() -> None:
    """Who has left takes no place in a batch."""
    model = Model()
    async with at_work(model) as batches:
        first = await busy(model, batches)
        one, two = batches.put(picture(1)), batches.put(picture(2))
        batches.drop(one)
        model.free.set()
        await seen(first)
        await seen(two)
    assert model.batches == [[-1], [2]]
    assert one.seen.cancelled()


async def test_failure() -> None:
    """When the model fails, those of that batch hear of it, and the next batch is tried."""
    model = Model()
    async with at_work(model) as batches:
        first = await busy(model, batches)
        model.fails = True
        model.free.set()
        with pytest.raises(RuntimeError, match="no memory"):
            await seen(first)
        model.fails = False
        assert (await seen(batches.put(picture(3)))).batch == 1


async def test_stuck() -> None:
    """A batch that is not done in time is told of."""
    model, told = Model(), asyncio.Event()
    async with at_work(model, stuck_s=0.01, stuck=told.set) as batches:
        await busy(model, batches)
        await asyncio.wait_for(told.wait(), 20)


async def test_bound() -> None:
    """No more pictures wait than are allowed."""
    model = Model()
    async with at_work(model) as batches:
        await busy(model, batches)
        for number in range(MOST_WAITING):
            batches.put(picture(number))
        with pytest.raises(asyncio.QueueFull):
            batches.put(picture(0))
        for each in list(batches._waiting):
            batches.drop(each)
