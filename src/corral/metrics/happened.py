"""`Happened`: entries of the event log in, counters with reasons out. Pure.

Reasons are words that entries carry as data, never read out of sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from corral.api import EventInfo
from corral.metrics.sums import OTHER, Few, Sums

MOST_REASONS: Final = 40
MOST_KINDS: Final = 150
_MOST_STARTS: Final = 1000

_UP: Final = frozenset(("ready", "sleeping", "draining"))
_FAILED: Final = frozenset(("failed", "gave up"))


class Happened:
    """Adds up. `model` gives the value of the label for a model or one of its units."""

    def __init__(self, model: Callable[[str], str], sums: Sums) -> None:
        self._model, self._sums = model, sums
        self._kinds, self._reasons = Few(MOST_KINDS, (OTHER,)), Few(MOST_REASONS, (OTHER,))
        self._swaps: dict[str, float] = {}  # by unit, what its newest start had to wait for

    def take(self, entries: Sequence[EventInfo]) -> None:
        for entry in entries:
            self._sums.count("corral_events_total", (self._kinds(entry.kind),))
            if entry.model is None:
                continue
            if entry.kind == "unit.state":
                self._step(entry, entry.model)
            elif entry.kind == "scheduler.start":
                self._start(entry, entry.model)
            elif entry.kind in ("scheduler.stop", "scheduler.sleep"):
                self._counted("corral_evictions_total", entry, "cause")
            elif entry.kind == "unit.fallback":
                self._counted("corral_fallbacks_total", entry, "rung")

    def _counted(self, metric: str, entry: EventInfo, field: str) -> None:
        assert entry.model is not None
        reason = entry.data.get(field)
        reason = self._reasons(reason) if isinstance(reason, str) and reason else OTHER
        self._sums.count(metric, (self._model(entry.model), reason))

    def _start(self, entry: EventInfo, unit: str) -> None:
        swap_s = _seconds(entry.data.get("swap_s"))
        if swap_s is None:
            self._swaps.pop(unit, None)
        elif len(self._swaps) < _MOST_STARTS:
            self._swaps[unit] = swap_s

    def _step(self, entry: EventInfo, unit: str) -> None:
        data = entry.data
        if data.get("event") == "became ready":
            load_ms, swap_s = _seconds(data.get("load_ms")), self._swaps.pop(unit, None)
            if load_ms is None:
                return
            labels = (self._model(unit),)
            self._sums.observe("corral_load_seconds", labels, load_ms / 1000)
            if swap_s is not None:
                self._sums.observe("corral_swap_seconds", labels, load_ms / 1000 + swap_s)
        elif data.get("event") in _FAILED:
            self._swaps.pop(unit, None)
            if data.get("before") in _UP:
                self._counted("corral_restarts_total", entry, "cause")


def _seconds(value: object) -> float | None:
    """A figure as it should be, above nothing."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12
    return float(value) if usable and isinstance(value, int | float) else None
