"""Counters of what happened, with reasons that entries of the event log carry as words."""

from __future__ import annotations

from typing import Any, get_args

from corral.api import EventInfo
from corral.config.settings import Rung
from corral.errors import EngineGone, GpuLost, OutOfMemory
from corral.gateway.path.again import why_lost
from corral.metrics.catalogue import METRICS, NO_START, REASONS
from corral.metrics.happened import MOST_KINDS, MOST_REASONS, Happened
from corral.metrics.sums import OTHER, Sums
from corral.scheduler.state import Cause
from corral.supervisor import reasons


def entry(kind: str, model: str | None = "demo", **data: Any) -> EventInfo:
    return EventInfo(1, 0.0, kind, model, None, "in words", data)


def happened(*entries: EventInfo) -> Sums:
    sums = Sums()
    Happened(lambda unit: unit.partition("~")[0], sums).take(entries)
    return sums


def test_an_end_that_nobody_asked_for_is_a_failure_with_its_cause() -> None:
    sums = happened(
        entry("unit.state", event="failed", before="ready", cause="signal"),
        entry("unit.state", "demo~2", event="gave up", before="draining", cause="hang"),
        entry("unit.state", event="failed", before="loading", cause="memory"),  # never came up
        entry("unit.state", event="failed", before="loading"),
        entry("unit.state", event="exited", before="stopping"),
        entry("unit.state", event="failed", before="ready"),
    )
    assert sums.counters["corral_engine_failures_total"] == {
        ("demo", "signal"): 1, ("demo", "hang"): 1, ("demo", "memory"): 1, ("demo", NO_START): 1, ("demo", OTHER): 1,
    }  # fmt: skip
    assert "corral_restarts_total" not in sums.counters  # nobody has started one of them again


def test_a_start_after_a_failure_is_a_restart_and_any_other_is_none() -> None:
    asked = {"event": "start asked"}
    sums = happened(
        entry("unit.state", **asked, before="stopped"),
        entry("unit.state", event="failed", before="ready", cause="signal"),
        entry("unit.state", **asked, before="backoff"),
        entry("unit.state", "demo~2", event="gave up", before="loading", cause="memory"),
        entry("unit.state", "demo~2", **asked, before="failed"),
        entry("unit.state", **asked, before="backoff"),  # it failed before this server counted
    )
    assert sums.counters["corral_restarts_total"] == {
        ("demo", "signal"): 1, ("demo", "memory"): 1, ("demo", OTHER): 1,
    }  # fmt: skip


def test_a_start_without_the_gpu_that_it_should_have_is_one_with_less() -> None:
    sums = happened(entry("unit.state", event="spawned", gave_up="cpu"), entry("unit.state", event="spawned"))
    assert sums.counters["corral_fallbacks_total"] == {("demo", "cpu"): 1}


def test_every_reason_that_somebody_gives_is_known() -> None:
    """What is told apart begins at nothing, so that the first of it shows."""
    assert set(REASONS["corral_engine_failures_total"]) == {*get_args(reasons.Kind), NO_START}
    assert set(REASONS["corral_evictions_total"]) == set(get_args(Cause))
    assert set(REASONS["corral_fallbacks_total"]) == set(get_args(Rung))
    lost = [
        EngineGone("x"), EngineGone("x", untouched=True), EngineGone("x", stumbled=True), OutOfMemory("x"),
        GpuLost("x"),
    ]  # fmt: skip
    assert set(REASONS["corral_retries_total"]) == {why_lost(each) for each in lost}
    assert set(REASONS["corral_resumes_total"]) < set(REASONS["corral_retries_total"])


def test_times_begin_at_nothing_with_the_first_load() -> None:
    sums = happened(entry("scheduler.start"))
    assert {name: sums.histograms[name]["demo",].count for name in sums.histograms} == {
        metric.name: 0 for metric in METRICS if metric.kind == "histogram"
    }


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
    sums = happened(entry("scheduler.start", swap_s=2.0), failed, again)
    assert sums.histograms["corral_swap_seconds"]["demo",].count == 0


def test_words_stay_few() -> None:
    sums = happened(*(entry("scheduler.stop", cause=f"c{number}") for number in range(500)))
    assert len(sums.counters["corral_evictions_total"]) == MOST_REASONS
    assert sum(sums.counters["corral_evictions_total"].values()) == 500
    kinds = happened(*(entry(f"k{number}", None) for number in range(500))).counters["corral_events_total"]
    assert len(kinds) == MOST_KINDS and sum(kinds.values()) == 500
