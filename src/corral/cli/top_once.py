"""The picture of `corral top --once`: plain tables, as other commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.cli import words
from corral.cli.app import App
from corral.cli.bars import progress
from corral.cli.table import Column
from corral.tui import figures
from corral.tui.units import context_fill, until
from corral.tui.view import View, called
from corral.units import show_bytes, show_duration

if TYPE_CHECKING:
    from corral.api_live import Live, LiveDevice, LiveUnit

_EVENTS = 10


def show(app: App, live: Live, order: str) -> None:
    if app.json:
        app.print_json(live)
        return
    app.say(
        f"corral {live.version}, up {show_duration(max(0.0, live.wall_s - live.started_wall_s))}: "
        f"{live.in_flight} busy, {live.waiting} waiting, {figures.rate(live.requests_per_s)} requests/s, "
        f"{words.rate(live.tokens_per_s)}, first token {_first_token(live.first_token_p50_ms, live.first_token_p95_ms)}"
    )
    app.say()
    _devices(app, live.devices)
    app.say()
    view = View("", order=order)
    view.seen(live, live.wall_s)
    _units(app, view.units())
    if live.downloads:
        app.say()
        columns = [Column("DOWNLOAD", cut=True), Column("STATE"), Column("PROGRESS")]
        app.print_table(columns, [[job.name, words.state(job.state), progress(job)] for job in live.downloads])
    if live.events:
        app.say()
    for event in live.events[-_EVENTS:]:
        app.say(f"{words.clock(event.wall_s)}  {event.model or 'corral'}  {event.kind}  {event.text}")


def _first_token(p50_ms: float | None, p95_ms: float | None) -> str:
    if p50_ms is None and p95_ms is None:
        return "-"
    return f"{words.milliseconds(p50_ms)} (p95 {words.milliseconds(p95_ms)})"


def _devices(app: App, devices: list[LiveDevice]) -> None:
    columns = [
        Column("DEVICE"),
        *(Column(name, right=True) for name in ("TOTAL", "FREE", "ENGINES", "OTHERS")),
        Column("BUDGET", rank=3, right=True),
        Column("BUSY", rank=1, right=True),
        Column("HEAT", rank=5, right=True),
        Column("POWER", rank=4, right=True),
        Column("MODELS", rank=2, cut=True),
    ]
    app.print_table(
        columns,
        [
            [
                each.name,
                words.size(each.total_bytes),
                words.size(each.free_bytes),
                words.size(sum(each.by_model.values())),
                words.size(each.others_bytes),
                words.size(each.budget_bytes),
                figures.percent(each.utilisation),
                "-" if each.temperature_c is None else f"{each.temperature_c:.0f} °C",
                "-" if each.power_w is None else f"{each.power_w:.0f} W",
                ", ".join(f"{name} {show_bytes(size)}" for name, size in sorted(each.by_model.items()) if size),
            ]
            for each in devices
        ],
    )
    for each in devices:
        if each.problem is not None:
            app.warn(f"{each.name} cannot be used: {each.problem}")


def _units(app: App, units: list[LiveUnit]) -> None:
    columns = [
        Column("MODEL", cut=True),
        Column("STATE"),
        Column("MEMORY", rank=1, right=True),
        Column("TOKENS/S", rank=2, right=True),
        Column("BUSY/QUEUED", rank=3, right=True),
        Column("TTFT P50", rank=4, right=True),
        Column("TTFT P95", rank=5, right=True),
        Column("CONTEXT", rank=6, right=True),
        Column("RESTARTS", rank=7, right=True),
        Column("UNTIL", rank=8),
        Column("DEVICE", rank=9),
        Column("REQUESTS", rank=10, right=True),
        Column("ERRORS", rank=11, right=True),
    ]
    if not units:
        app.note("No models are configured. Fetch one with: corral pull REF")
        return
    app.print_table(
        columns,
        [
            [
                called(unit),
                words.state(unit.state),
                words.size(unit.held_bytes),
                figures.rate(unit.tokens_per_s),
                f"{unit.busy}/{unit.queued}",
                words.milliseconds(unit.first_token_p50_ms),
                words.milliseconds(unit.first_token_p95_ms),
                figures.percent(context_fill(unit)),
                str(unit.restarts),
                until(unit),
                words.computes_on(unit),
                str(unit.requests),
                str(unit.errors),
            ]
            for unit in units
        ],
    )
    for unit in units:
        if unit.reason and unit.state in ("failed", "backoff"):
            app.warn(f"{called(unit)} is {unit.state}: {unit.reason}")
        if unit.degraded:
            app.warn(f"{called(unit)} is degraded: {unit.degraded}")
