"""The daemon's own events as they come: what a unit does, and when it did it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.clients import events_of, get, read_head


@dataclass(frozen=True, slots=True)
class Happened:
    """One event. `wall_s` is the moment as the daemon wrote it down."""

    wall_s: float
    kind: str
    model: str
    unit: str
    text: str
    data: dict[str, Any]

    @property
    def after(self) -> str:
        """The state a unit went to; empty for events of another kind."""
        return str(self.data.get("after", "")) if self.kind == "unit.state" else ""


@dataclass
class Feed:
    """Follows one daemon after the other. `states` and `pids` are of each model's newest unit."""

    socket: Path
    seen: list[Happened] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = field(default_factory=list)

    async def open(self) -> None:
        """Begins with a daemon that has just come: its units as they are, then all that it tells."""
        await self.close()
        self.states.clear()
        self.pids.clear()
        self.units.clear()
        known = await get(self.socket, "/control/events")  # those of earlier daemons too
        for unit in await get(self.socket, "/control/units"):
            self.states[unit["model"]], self.units[unit["model"]] = unit["state"], unit["unit"]
            if unit["pid"]:
                self.pids[unit["model"]] = unit["pid"]
        self._task = asyncio.create_task(self._follow(known[-1]["seq"] if known else 0), name="feed")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self, since: int) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=1 << 22)
        try:
            writer.write(f"GET /control/events?follow=1&since={since} HTTP/1.1\r\nHost: corral\r\n\r\n".encode())
            _, headers = await read_head(reader)
            async for event in events_of(reader, headers):
                self._take(json.loads(event))
        except (OSError, asyncio.IncompleteReadError):
            return  # the daemon is gone
        finally:
            writer.close()

    def _take(self, data: dict[str, Any]) -> None:
        happened = Happened(
            data["wall_s"], data["kind"], data["model"] or "", data["unit"] or "", data["text"], data["data"]
        )
        self.seen.append(happened)
        if happened.after:
            self.states[happened.model], self.units[happened.model] = happened.after, happened.unit
            if happened.after not in ("ready", "draining", "stopping"):
                self.pids.pop(happened.model, None)
            if (found := re.search(r"\(pid (\d+)\)", happened.text)) and happened.after == "loading":
                self.pids[happened.model] = int(found[1])
        for holds, future in self._waiting:
            if not future.done() and (value := holds()):
                future.set_result(value)

    async def until(self, holds: Callable[[], Any], what: str, within_s: float) -> Any:
        """The first true value of `holds`, which is asked after each event: at once, since several may come in one
        piece, and what held after the first no longer holds after the last. Raises Late."""
        if value := holds():
            return value
        waiting = (holds, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(within_s):
                return await waiting[1]
        except TimeoutError:
            raise Late(f"not within {within_s:.0f} s: {what}") from None
        finally:
            self._waiting.remove(waiting)

    async def event(self, since: int, which: Callable[[Happened], bool], what: str, within_s: float) -> Happened:
        """The first event from number `since` of `seen` on that is meant."""
        found: Happened = await self.until(lambda: next(filter(which, self.seen[since:]), None), what, within_s)
        return found


class Late(Exception):
    """Something did not happen in time."""
