"""A piece of work of the store while its client is told how far it is, in Docker's lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from corral.api_store import DownloadInfo, Progress
from corral.errors import CorralError
from corral.gateway.dialects.docker.errors import text
from corral.gateway.dialects.docker.lines import ESCAPED, PLAIN, Line, Mode, wants_plain, written
from corral.gateway.exchange import Exchange
from corral.gateway.models_host import ModelsHost, Report

T = TypeVar("T")
_EVERY_S = 0.1
"""Progress is told so often at most."""


class Lines:
    """The stream of lines of one exchange. It begins with the first of them, so that an early error is a status."""

    def __init__(self, exchange: Exchange, mode: Mode) -> None:
        self._exchange, self._mode = exchange, mode
        self._plain = wants_plain(exchange.header(b"accept"))

    async def say(self, lines: list[Line]) -> None:
        if not lines:
            return
        if not self._exchange.started:
            head = [(b"content-type", PLAIN if self._plain else ESCAPED), (b"x-accel-buffering", b"no")]
            await self._exchange.start(200, head, events=True)
        await self._exchange.write(written(lines, plain=self._plain))

    async def end(self, last: list[Line]) -> None:
        await self.say(last)
        await self._exchange.end()

    async def fail(self, error: CorralError) -> None:
        """Raises `error` while it can still be the answer's status."""
        if not self._exchange.started:
            raise error
        line = {"type": "error", "message": text(error), "total": 0, "layer": {"size": 0, "current": 0}}
        await self.end([{**line, "mode": self._mode}])


async def following(models: ModelsHost, download: DownloadInfo) -> AsyncGenerator[DownloadInfo, None]:
    """`download` as it changes, up to its end."""
    if download.over:
        return
    feed = models.follow_downloads()
    try:
        async for each in feed:
            if each.id == download.id:
                yield each
                if each.over:
                    return
    finally:
        if (close := getattr(feed, "aclose", None)) is not None:
            await close()


async def working(act: Callable[[Report], Awaitable[T]], lines: Lines, shaped: Callable[[Progress], Line]) -> T:
    """What `act` comes to, the newest of its progress told ten times a second. When the client leaves, it ends."""
    loop, newest, changed = asyncio.get_running_loop(), list[Progress](), asyncio.Event()

    def take(progress: Progress) -> None:
        newest[:] = [progress]
        changed.set()

    def report(progress: Progress) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(take, progress)

    async def work() -> T:
        return await act(report)

    task = asyncio.create_task(work(), name="docker work")
    try:
        while not task.done():
            changing = asyncio.create_task(changed.wait())
            await asyncio.wait({task, changing}, return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()
            changed.clear()
            said, newest[:] = newest[:], []
            await lines.say([shaped(each) for each in said])
            if not task.done():
                await asyncio.wait({task}, timeout=_EVERY_S)
        await lines.say([shaped(each) for each in newest])
        return task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, CorralError):
            await task
