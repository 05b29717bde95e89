"""`Top` without a terminal: keys typed, and its screen as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot

from corral.client import Client
from corral.connection import Address
from corral.tui.app import Top
from corral.tui.view import View


class Watch:
    def __init__(self, top: Top, pilot: Pilot[None]) -> None:
        self.top = top
        self._pilot = pilot

    @property
    def text(self) -> str:
        """What the widget draws now."""
        pane = self.top.pane
        return "".join(pane.render_line(y).text.rstrip() + "\n" for y in range(pane.size.height))

    @property
    def last(self) -> str:
        return self.text.splitlines()[-1].strip()

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)

    async def until(self, condition: Callable[[str], object], within_s: float = 20.0) -> str:
        """The screen, once it is as wanted."""
        deadline = time.monotonic() + within_s
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            await asyncio.sleep(0.02)
        return self.text

    async def shows(self, words: str) -> str:
        return await self.until(lambda text: words in text)

    async def no_longer(self, words: str) -> str:
        return await self.until(lambda text: words not in text)


@asynccontextmanager
async def watching(
    socket: Path,
    *,
    size: tuple[int, int] = (80, 24),
    colors: bool = True,
    ascii_only: bool = False,
    interval_s: float = 0.2,
) -> AsyncIterator[Watch]:
    top = Top(
        lambda: Client(Address(socket=socket)),
        View(""),
        interval_s=interval_s,
        colors=colors,
        ascii_only=ascii_only,
    )
    try:
        async with top.run_test(size=size) as pilot:
            yield Watch(top, pilot)
    finally:
        await asyncio.to_thread(top.end)
