"""What asyncio lacks: a group of tasks that can all be ended, work that an event ends or that is in no hurry, and the
loop we use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks(asyncio.TaskGroup):
    """A TaskGroup that knows its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self._mine: set[asyncio.Task[Any]] = set()

    def create_task(self, *args: Any, **more: Any) -> asyncio.Task[Any]:
        task = super().create_task(*args, **more)
        self._mine.add(task)
        task.add_done_callback(self._mine.discard)
        return task

    def cancel(self) -> None:
        for task in list(self._mine):
            task.cancel()


async def done_before(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does `work`, and breaks it off when `event` is set; whether it came to its end."""
    working, waiting = asyncio.create_task(work, name="work"), asyncio.create_task(event.wait(), name="an event")
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        done = working.done()
        if done:
            working.result()
        return done
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


AT_ONCE_S = 0.0005
"""How long work that is in no hurry may keep the event loop from everything else."""


async def unhurried(work: Iterable[T]) -> list[T]:
    """What `work` gives, piece by piece, with everything else let through between pieces: a thread would hold up the
    loop for longer, since the interpreter changes between threads only every few milliseconds."""
    now, made = asyncio.get_running_loop().time, []
    until = now() + AT_ONCE_S
    for piece in work:
        made.append(piece)
        if now() > until:
            await asyncio.sleep(0)
            until = now() + AT_ONCE_S
    return made
