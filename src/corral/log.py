"""What the server says on standard error: its event log, a line each."""

from __future__ import annotations

import sys
import time

from corral.api import EventInfo
from corral.events import EventLog

_LEVELS = ("debug", "info", "warning", "error")
_WARNINGS = (
    "unit.warning", "unit.hung", "unit.dropped", "unit.ended", "config.warning", "config.refused", "journal.failing",
)  # fmt: skip
_ERRORS = ("bug",)
_DEBUG = ("request.", "scheduler.start", "conversation.kept")


def level_of(event: EventInfo) -> str:
    """How much `event` matters."""
    if event.kind in _ERRORS:
        return "error"
    if event.kind in _WARNINGS or event.data.get("after") in ("backoff", "failed"):
        return "warning"
    return "debug" if event.kind.startswith(_DEBUG) else "info"


class Console:
    """Prints events of at least `level`; with `quiet`, warnings and errors only."""

    def __init__(self, events: EventLog, *, level: str = "info", quiet: bool = False) -> None:
        self._events = events
        self._least = max(_LEVELS.index(level), _LEVELS.index("warning") if quiet else 0)
        self._seen = events.last_seq  # what an earlier server did was shown by it

    async def run(self) -> None:
        async for event in self._events.follow(self._seen):
            self._show(event)

    def flush(self) -> None:
        """Prints what came since the task was last run."""
        for event in self._events.since(self._seen):
            self._show(event)

    def _show(self, event: EventInfo) -> None:
        self._seen = event.seq
        level = level_of(event)
        if _LEVELS.index(level) < self._least:
            return
        stamp = time.strftime("%H:%M:%S", time.localtime(event.wall_s))
        mark = "" if level in ("debug", "info") else f"{level}: "
        try:
            sys.stderr.write(f"{stamp} {mark}{event.text}\n")
            sys.stderr.flush()
        except OSError:
            self._least = len(_LEVELS)  # nobody reads any more
