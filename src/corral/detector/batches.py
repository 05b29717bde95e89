"""Pictures of several requests on their way through the model together. The event loop owns it; the model runs in a
thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import Final

import numpy as np
import numpy.typing as npt

from corral.detector.findings import Numbers
from corral.detector.pictures import Tensor
from corral.lazy_dataclass import dataclass

Run = Callable[[npt.NDArray[np.float32]], tuple[Numbers, Numbers]]

MOST_WAITING: Final = 1024
"""Pictures; whoever comes beyond is refused."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model said of one picture, and how that went."""

    logits: Numbers
    boxes: Numbers
    batch: int
    queue_ms: float
    inference_ms: float


@dataclass(slots=True, eq=False)
class Waiting:
    """A picture that waits. `seen` raises what the model raised."""

    tensor: Tensor
    seen: asyncio.Future[Seen]
    since: float = field(default_factory=time.monotonic)


class Batches:
    """What is `put` here is seen in its turn. `run` is called with batches of up to `largest`.

    A batch that is not full waits for others up to `window_s`, but only while any are on their way (`coming`): who is
    alone waits for nobody. A batch that takes longer than `stuck_s` calls `stuck`.
    """

    def __init__(self, run: Run, *, largest: int, window_s: float, stuck_s: float, stuck: Callable[[], None]) -> None:
        self._run, self._largest, self._window_s = run, largest, window_s
        self._stuck_s, self._stuck = stuck_s, stuck
        self._waiting: deque[Waiting] = deque()
        self._something = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.coming = 0  # pictures that are being read and decoded
        self.pictures = self.batches = 0  # so far

    def put(self, tensor: Tensor) -> Waiting:
        """Has `tensor` wait for a batch; await its `seen`, and `drop` it when nobody wants that any more. Raises
        asyncio.QueueFull."""
        if len(self._waiting) >= MOST_WAITING:
            raise asyncio.QueueFull
        mine = Waiting(tensor, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._something.set()
        return mine

    def drop(self, one: Waiting) -> None:
        """Nobody waits for it any more. Nothing where it has been seen."""
        if not one.seen.done() or one.seen.cancelled():
            one.seen.cancel()
            if one in self._waiting:
                self._waiting.remove(one)

    def expect(self, count: int) -> None:
        """So many more pictures are coming."""
        self.coming += count

    def came(self, count: int = 1) -> None:
        """So many of those are here, or will not come."""
        self.coming -= count
        self._something.set()

    async def work(self) -> None:
        """A task, for as long as the program runs."""
        while True:
            batch = await self._next()
            if batch:
                await self._see(batch)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _next(self) -> list[Waiting]:
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        until = self._waiting[0].since + self._window_s
        while 0 < len(self._waiting) < self._largest and self.coming > 0 and (left := until - time.monotonic()) > 0:
            self._something.clear()
            try:
                async with asyncio.timeout(left):
                    await self._something.wait()
            except TimeoutError:
                break
        return [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]

    async def _see(self, batch: list[Waiting]) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        bite = loop.call_later(self._stuck_s, self._stuck)
        try:
            logits, boxes = await loop.run_in_executor(self._thread, lambda: self._run(_stacked(batch)))
        except Exception as exc:  # noqa: BLE001 - whoever waits for this batch is told, and the next one is tried
            for each in batch:
                if not each.seen.done():
                    each.seen.set_exception(exc)
            return
        finally:
            bite.cancel()
        took_ms = (time.monotonic() - began) * 1000
        self.batches, self.pictures = self.batches + 1, self.pictures + len(batch)
        for at, each in enumerate(batch):
            if not each.seen.done():
                seen = Seen(logits[at], boxes[at], len(batch), (began - each.since) * 1000, took_ms)
                each.seen.set_result(seen)


def _stacked(batch: list[Waiting]) -> npt.NDArray[np.float32]:
    return np.stack([each.tensor for each in batch])
