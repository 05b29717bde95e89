"""The load generator: requests at once or at a rate, each timed to its pieces, and the generator itself watched."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import Final

from corral.connection import Address
from corral.lazy_dataclass import dataclass
from corral.measure.answer import Shot
from corral.measure.curve import Late, Run
from corral.measure.stats import arrivals, quantile
from corral.measure.wire import shoot, tls_of
from corral.measure.work import Work

TICK_S: Final = 0.005
"""How often the generator looks at the clock, to see how late it is."""


_One = Callable[[bytes, float], Coroutine[None, None, None]]


async def run(
    address: Address, work: Work, level: int, requests: int, *, seed: object = 0, rate: float | None = None
) -> Run:
    """`requests` of them, `level` at once; with a `rate`, sent at random times, so many a second, however many are open
    then (`level` 0), or at most `level`. What goes wrong is in its shot. Raises CallerError for a bad authority's file.
    """
    tls = tls_of(address)
    bodies = work.bodies(requests, f"{seed} {level} {rate}")
    shots: list[Shot] = []

    async def one(body: bytes, due: float | None = None) -> None:
        shots.append(await shoot(address, tls, work.path, body, due=due))

    async def line(todo: Iterator[bytes]) -> None:
        for body in todo:
            await one(body)

    with _undisturbed():
        watch = _Watch()
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(watch.tick())
            async with asyncio.TaskGroup() as work_group:
                if rate is None:
                    todo = iter(bodies)
                    for _ in range(level):
                        work_group.create_task(line(todo))
                else:
                    await _at_rate(work_group, one, bodies, rate, level, seed)
            ticking.cancel()
        late = watch.late(shots)
    return Run(level, tuple(shots), rate, late)


async def _at_rate(
    group: asyncio.TaskGroup, one: _One, bodies: Sequence[bytes], rate: float, most: int, seed: object
) -> None:
    chance = random.Random(f"arrivals {seed} {rate}")
    room = asyncio.Semaphore(most) if most else None
    began = time.perf_counter()

    async def bounded(body: bytes, due: float) -> None:
        if room is None:
            await one(body, due)
            return
        async with room:
            await one(body, due)

    for body, after in zip(bodies, arrivals(rate, [chance.expovariate(1.0) for _ in bodies]), strict=True):
        await asyncio.sleep(max(0.0, began + after - time.perf_counter()))
        while time.perf_counter() < began + after:  # noqa: ASYNC110 - loops may wake a part of a millisecond early
            await asyncio.sleep(0)
        group.create_task(bounded(body, began + after))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection meanwhile: it would be seen in the times."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass
class _Watch:
    """Sleeps a little again and again, and keeps how much later than asked it woke."""

    began: float = field(default_factory=time.perf_counter)
    spent: float = field(default_factory=time.process_time)
    seen: list[float] = field(default_factory=list)

    async def tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self.seen.append(max(0.0, time.perf_counter() - due))

    def late(self, shots: Sequence[Shot]) -> Late:
        wall = time.perf_counter() - self.began
        busy = (time.process_time() - self.spent) / wall if wall > 0 else 0.0
        sent = [shot.began - shot.due for shot in shots if shot.due is not None]
        seen = self.seen or [0.0]
        return Late(
            quantile(seen, 0.5) * 1000,
            quantile(seen, 0.95) * 1000,
            max(seen) * 1000,
            busy,
            quantile(sent, 0.95) * 1000 if sent else None,
        )
