"""Counters of what happened, with reasons that entries of the event log carry as words."""

from __future__ import annotations

from typing import Any

from corral.api import EventInfo
from corral.metrics.happened import MOST_KINDS, MOST_REASONS, Happened
from corral.metrics.sums import OTHER, Sums


def entry(kind: str, model: str | None = "demo", **data: Any) -> EventInfo:
    return EventInfo(1, 0.0, kind, model, None, "in words", data)


def happened(*entries: EventInfo) -> Sums:
    sums = Sums()
    Happened(lambda unit: unit.partition("~")[0], sums).take(entries)
    return sums


def test_an_end_that_nobody_asked_for_is_a_restart_with_its_cause() -> None:
    sums = happened(
        entry("unit.state", event="failed", before="ready", cause="signal"),
        entry("unit.state", "demo~2", event="gave up", before="draining", cause="hang"),
        entry("unit.state", event="failed", before="loading", cause="memory"),  # never came up
        entry("unit.state", event="exited", before="stopping"),
        entry("unit.state", event="failed", before="ready"),
    )
    assert sums.counters["corral_restarts_total"] == {
        ("demo", "signal"): 1, ("demo", "hang"): 1, ("demo", OTHER): 1,
    }  # fmt: skip


def test_ends_and_starts_with_less_are_counted_by_their_word() -> None:
    sums = happened(
        entry("scheduler.stop", cause="idle"), entry("scheduler.sleep", cause="room"),
        entry("scheduler.stop", cause="idle"), entry("unit.fallback", rung="cpu"), entry("scheduler.stop", cause=["x"]),
    )  # fmt: skip
    assert sums.counters["corral_evictions_total"] == {("demo", "idle"): 2, ("demo", "room"): 1, ("demo", OTHER): 1}
    assert sums.counters["corral_fallbacks_total"] == {("demo", "cpu"): 1}
    assert sums.counters["corral_events_total"] == {
        ("scheduler.stop",): 3, ("scheduler.sleep",): 1, ("unit.fallback",): 1,
    }  # fmt: skip


def test_a_swap_is_a_load_and_the_ends_that_it_waited_for() -> None:
    ready = entry("unit.state", event="became ready", load_ms=1500.0)
    sums = happened(entry("scheduler.start", swap_s=2.0), ready, entry("scheduler.start"), ready)
    load, swap = (sums.histograms[f"corral_{name}_seconds"]["demo",] for name in ("load", "swap"))
    assert (load.count, load.sum, swap.count, swap.sum) == (2, 3.0, 1, 3.5)


def test_a_start_that_failed_leaves_nothing_to_the_next() -> None:
    failed = entry("unit.state", event="failed", before="loading")
    again = entry("unit.state", event="became ready", load_ms=1000.0)
    assert "corral_swap_seconds" not in happened(entry("scheduler.start", swap_s=2.0), failed, again).histograms


def test_words_stay_few() -> None:
    sums = happened(*(entry("scheduler.stop", cause=f"c{number}") for number in range(500)))
    assert len(sums.counters["corral_evictions_total"]) == MOST_REASONS
    assert sum(sums.counters["corral_evictions_total"].values()) == 500
    kinds = happened(*(entry(f"k{number}", None) for number in range(500))).counters["corral_events_total"]
    assert len(kinds) == MOST_KINDS and sum(kinds.values()) == 500
