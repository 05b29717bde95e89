"""What the server says on standard error: its event log, a line each, for people or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from corral import clock
from corral.api import EventInfo
from corral.events import EventLog

_LEVELS = ("debug", "info", "warning", "error")
_WARNINGS = (
    "unit.warning", "unit.hung", "unit.dropped", "unit.ended", "config.warning", "config.refused", "journal.failing",
    "traces.failing", "log.failing",
)  # fmt: skip
_ERRORS = ("bug",)
_DEBUG = ("request.", "unit.unfair", "scheduler.start", "conversation.kept")
JSON: Final = "json"


def level_of(event: EventInfo) -> str:
    """How much `event` matters."""
    if event.kind in _ERRORS:
        return "error"
    if event.kind in _WARNINGS or event.data.get("after") in ("backoff", "failed"):
        return "warning"
    return "debug" if event.kind.startswith(_DEBUG) else "info"


def line(
    shape: str,
    level: str,
    wall_s: float,
    kind: str,
    text: str,
    *,
    model: str | None = None,
    unit: str | None = None,
    data: Mapping[str, Any],
) -> str:
    """One line of the log, with its end."""
    if shape == JSON:
        fields = {
            "time": clock.iso(wall_s), "level": level, "event": kind, "model": model, "unit": unit, "text": text,
            "data": data,
        }  # fmt: skip
        return json.dumps(fields, ensure_ascii=False, default=str) + "\n"
    stamp = time.strftime("%H:%M:%S", time.localtime(wall_s))
    mark = "" if level in ("debug", "info") else f"{level}: "
    return f"{stamp} {mark}{text}\n"


class Console:
    """Prints events of at least `level`; with `quiet`, warnings and errors only. `shape` says how: `"json"`, or for
    people."""

    def __init__(
        self, events: EventLog, shape: Callable[[], str] = lambda: "human", *, level: str = "info", quiet: bool = False
    ) -> None:
        self._events, self._shape = events, shape
        self._least = max(_LEVELS.index(level), _LEVELS.index("warning") if quiet else 0)
        self._seen = events.last_seq  # what an earlier server did was shown by it

    async def run(self) -> None:
        async for event in self._events.follow(self._seen):
            self._show(event)

    def flush(self) -> None:
        """Prints what came since the task was last run."""
        for event in self._events.since(self._seen):
            self._show(event)

    def write(self, lines: str) -> None:
        """Whole lines of somebody else's, such as the request log's. From any thread; blocks when nobody reads."""
        if self._least >= len(_LEVELS):
            return
        try:
            sys.stderr.write(lines)
            sys.stderr.flush()
        except OSError:
            self._least = len(_LEVELS)  # nobody reads any more

    def _show(self, event: EventInfo) -> None:
        self._seen = event.seq
        level = level_of(event)
        if _LEVELS.index(level) >= self._least:
            self.write(
                line(
                    self._shape(), level, event.wall_s, event.kind, event.text,
                    model=event.model, unit=event.unit, data=event.data,
                )
            )  # fmt: skip
