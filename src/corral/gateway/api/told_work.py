"""Work of the store whose progress a client hears of while it goes on, in whatever lines its dialect has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from corral.api_store import DownloadInfo, Progress
from corral.errors import CorralError, NotOffered
from corral.gateway.models_host import ModelsHost, Report

T = TypeVar("T")
L = TypeVar("L")
_EVERY_S = 0.1


def the_store(models: ModelsHost | None) -> ModelsHost:
    """`models`. Raises NotOffered where there are none."""
    if models is None:
        raise NotOffered("this server has no model store", hint="start it with `corral serve`")
    return models


async def working(
    act: Callable[[Report], Awaitable[T]],
    say: Callable[[list[L]], Awaitable[None]],
    shaped: Callable[[Progress], L],
) -> T:
    """What `act` comes to. Ten times a second at most `say` gets what is new, `shaped`: the newest of each thing that
    is being done, in order. When the client leaves, the work ends."""
    loop, waiting, changed = asyncio.get_running_loop(), list[Progress](), asyncio.Event()

    def take(progress: Progress) -> None:
        if waiting and waiting[-1].text == progress.text:
            waiting[-1] = progress
        else:
            waiting.append(progress)
        changed.set()

    def report(progress: Progress) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(take, progress)

    async def tell() -> None:
        said, waiting[:] = waiting[:], []
        await say([shaped(each) for each in said])

    async def work() -> T:
        return await act(report)

    task = asyncio.create_task(work(), name="told work")
    try:
        while not task.done():
            changing = asyncio.create_task(changed.wait())
            await asyncio.wait({task, changing}, return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()
            changed.clear()
            await tell()
            if not task.done():
                await asyncio.wait({task}, timeout=_EVERY_S)
        await tell()
        return task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, CorralError):  # told already, or nobody is there to be told
            await task


async def following(models: ModelsHost, download: DownloadInfo) -> AsyncGenerator[DownloadInfo, None]:
    """`download` as it changes, up to its end. Whoever may leave before that closes it."""
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
