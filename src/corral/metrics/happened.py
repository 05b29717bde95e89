"""`Happened`: entries of the event log in, counters with reasons out. Pure.

Reasons are words that entries carry as data, never read out of sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from corral.api import EventInfo
from corral.metrics.catalogue import NO_START
from corral.metrics.sums import OTHER, Few, Sums

MOST_REASONS: Final = 40
MOST_KINDS: Final = 150
_MOST_STARTS: Final = 1000

_COMING: Final = frozenset(("starting", "loading"))
_FAILED: Final = frozenset(("failed", "gave up"))
_AFTER_FAILURE: Final = frozenset(("backoff", "failed"))
_TIMES: Final = (
    "corral_queue_seconds", "corral_time_to_first_token_seconds", "corral_inter_token_seconds",
    "corral_request_seconds", "corral_load_seconds", "corral_swap_seconds",
)  # fmt: skip


class Happened:
    """Adds up. `model` gives the value of the label for a model or one of its units."""

    def __init__(self, model: Callable[[str], str], sums: Sums) -> None:
        self._model, self._sums = model, sums
        self._kinds, self._reasons = Few(MOST_KINDS, (OTHER,)), Few(MOST_REASONS, (OTHER,))
        self._swaps: dict[str, float] = {}  # by unit, what its newest start had to wait for
        self._failed: dict[str, str] = {}  # by unit, why it failed, until it is started again

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

    def _counted(self, metric: str, entry: EventInfo, field: str, otherwise: str = OTHER) -> str:
        """Counts by the word that `entry` has, and tells it."""
        assert entry.model is not None
        reason = entry.data.get(field)
        reason = self._reasons(reason) if isinstance(reason, str) and reason else otherwise
        self._sums.count(metric, (self._model(entry.model), reason))
        return reason

    def _start(self, entry: EventInfo, unit: str) -> None:
        for name in _TIMES:  # at nothing while it loads, so that its first request shows
            self._sums.observe(name, (self._model(unit),), 0.0, 0)
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
            otherwise = NO_START if data.get("before") in _COMING else OTHER
            reason = self._counted("corral_engine_failures_total", entry, "cause", otherwise)
            if len(self._failed) < _MOST_STARTS:
                self._failed[unit] = reason
        elif data.get("event") == "start asked" and data.get("before") in _AFTER_FAILURE:
            self._sums.count("corral_restarts_total", (self._model(unit), self._failed.pop(unit, OTHER)))
        elif data.get("event") == "spawned" and data.get("gave_up") is not None:
            self._counted("corral_fallbacks_total", entry, "gave_up")


def _seconds(value: object) -> float | None:
    """A figure as it should be, above nothing."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12
    return float(value) if usable and isinstance(value, int | float) else None
