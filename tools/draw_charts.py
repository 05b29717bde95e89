"""`make charts`: the pictures of docs/operate.md, drawn from a Prometheus's answers to the dashboards' own queries.

The test that scrapes a Corral under load calls `draw_all` with that Prometheus. What is drawn is what Grafana would ask
for; how it looks is this file's own.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from corral.deploy.grafana.panels import Panel
from corral.deploy.grafana.target import BOARDS

Between = Callable[[str, float, float, float], list[dict[str, Any]]]
"""A query over a time: expression, start, end, step; series with `metric` and `values`."""

SHEETS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "overview.svg": (
        "corral-overview",
        (
            "Requests by model", "Requests by status", "In work and waiting", "Time to the first token",
            "Tokens per second", "Failures, restarts, evictions, fall-backs",
        ),
    ),
    "model.svg": (
        "corral-model",
        ("Between two tokens", "Time in the queue", "Loads and swaps, p95", "Memory: predicted, measured, held"),
    ),
    "storage.svg": ("corral-storage", ("Speed of downloads", "Seconds without a byte")),
    "engines.svg": ("corral-engines", ("Tokens per second", "Time spent")),
}  # fmt: skip
"""By file: a dashboard, and which of its panels."""

COLORS: Final = (
    "#1f77b4", "#d98c1f", "#2a9d4e", "#c23b3b", "#7b5fb0", "#8c6d4f", "#d66fae", "#6f6f6f", "#a8a83a", "#2fa8b8",
)  # fmt: skip
MOST: Final = 8
"""Series drawn of one panel: those that reach highest."""
WIDE, HIGH, LEFT, TOP, GAP = 330, 120, 66, 34, 18
LINE: Final = 14
POINTS: Final = 110

_UNITS: Final[Mapping[str, Sequence[tuple[float, str]]]] = {
    "s": ((60, "min"), (1, "s"), (1e-3, "ms")),
    "bytes": ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")),
    "Bps": ((1 << 20, "MiB/s"), (1 << 10, "KiB/s"), (1, "B/s")),
    "percentunit": ((0.01, "%"),),
    "reqps": ((1, "/s"),),
    "suffix: tok/s": ((1, "tok/s"),),
}


@dataclass(frozen=True)
class Line:
    """One series: its name, and its values by the seconds since the beginning; what is not there is None."""

    name: str
    points: list[tuple[float, float | None]]

    @property
    def most(self) -> float:
        return max((value for _, value in self.points if value is not None), default=0.0)


def draw_all(between: Between, folder: Path, start: float, end: float) -> None:
    """Writes every sheet into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, (uid, titles) in SHEETS.items():
        (board,) = (each for each in BOARDS if each.uid == uid)
        panels = [next(panel for panel in board.panels if panel.title == title) for title in titles]
        charts = [(panel, lines_of(panel, between, start, end)) for panel in panels]
        (folder / file).write_text(sheet(board.title, charts, end - start, end), encoding="utf-8")


def lines_of(panel: Panel, between: Between, start: float, end: float) -> list[Line]:
    """What the panel's queries have, those that reach highest first."""
    step = max(2.0, (end - start) / POINTS)
    found = []
    for query in panel.queries:
        expr = query.expr.replace("$__rate_interval", "1m").replace("$__range", "5m")
        expr = re.sub(r"\$\w+", ".*", expr)
        for series in between(expr, start, end, step):
            found.append(Line(named(query.legend, series["metric"]), spaced(series["values"], start, step)))
    found = [line for line in found if any(value is not None for _, value in line.points)]
    return sorted(found, key=lambda line: -line.most)[:MOST]


def named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip() or "value"


def spaced(values: Sequence[tuple[float, str]], start: float, step: float) -> list[tuple[float, float | None]]:
    """The values at their seconds, with None where some are missing."""
    points: list[tuple[float, float | None]] = []
    before = None
    for at, text in values:
        if before is not None and at - before > 1.5 * step:
            points.append((before - start + step, None))
        value = float(text)
        points.append((at - start, value if math.isfinite(value) else None))
        before = at
    return points


def sheet(title: str, charts: Sequence[tuple[Panel, Sequence[Line]]], span: float, end: float) -> str:
    """All charts of one dashboard, two beside each other, with a line that says what they are."""
    rows = [charts[first : first + 2] for first in range(0, len(charts), 2)]
    width, y, body = 2 * (LEFT + WIDE + GAP), 46.0, []
    for row in rows:
        legend = max(math.ceil(len(lines) / 2) for _, lines in row)
        for place, (panel, lines) in enumerate(row):
            body.append(chart(panel, lines, place * (LEFT + WIDE + GAP), y, span))
        y += TOP + HIGH + 22 + legend * LINE + GAP
    day = time.strftime("%Y-%m-%d", time.gmtime(end))
    words = f"Not Grafana: drawn from a Prometheus that scraped a Corral under test load ({day}), by the same queries."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y:.0f}" '
        'font-family="sans-serif" font-size="11" fill="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="16" y="20" font-size="14" font-weight="bold">{escape(title)}</text>\n'
        f'<text x="16" y="36" fill="#777" font-size="10">{escape(words)}</text>\n{"".join(body)}</svg>\n'
    )


def chart(panel: Panel, lines: Sequence[Line], x: float, y: float, span: float) -> str:
    """One panel at its place."""
    left, top = x + LEFT, y + TOP
    stacked = stack(lines) if panel.stack else [[(at, 0.0, value) for at, value in line.points] for line in lines]
    most = max((upper for points in stacked for _, _, upper in points if upper is not None), default=0.0) or 1.0
    ceiling, ticks = scale(most, panel.unit)
    made = [f'<text x="{left:.0f}" y="{y + 22:.0f}" font-weight="bold">{escape(panel.title)}</text>\n']
    for value, text in ticks:
        height = top + HIGH - value / ceiling * HIGH
        made.append(f'<path d="M{left:.1f} {height:.1f}h{WIDE}" stroke="#e4e4e4"/>')
        made.append(f'<text x="{left - 6:.0f}" y="{height + 4:.1f}" text-anchor="end" font-size="10">{text}</text>\n')
    for minute in minutes(span):
        at = left + minute * 60 / span * WIDE
        made.append(f'<path d="M{at:.1f} {top + HIGH}v4" stroke="#999"/>')
        made.append(
            f'<text x="{at:.1f}" y="{top + HIGH + 15}" text-anchor="middle" font-size="10">{minute:g} min</text>\n'
        )
    made.append(f'<path d="M{left:.1f} {top + HIGH}h{WIDE}" stroke="#999"/>\n')

    def place(at: float, value: float) -> str:
        return f"{left + at / span * WIDE:.1f} {top + HIGH - value / ceiling * HIGH:.1f}"

    for number, points in enumerate(stacked):
        color = COLORS[number % len(COLORS)]
        for run in runs(points):
            upper = "L".join(place(at, value) for at, _, value in run)
            if panel.stack:
                lower = "L".join(place(at, base) for at, base, _ in reversed(run))
                made.append(f'<path d="M{upper}L{lower}Z" fill="{color}" fill-opacity="0.75"/>')
                continue
            shape = f"M{upper}" if len(run) > 1 else f"M{upper}h1.5"
            made.append(f'<path d="{shape}" fill="none" stroke="{color}" stroke-width="1.4"/>\n')
    for number, line in enumerate(lines):
        below, beside = top + HIGH + 30 + number // 2 * LINE, left + number % 2 * WIDE / 2
        made.append(
            f'<rect x="{beside:.0f}" y="{below - 7:.0f}" width="9" height="9" fill="{COLORS[number % len(COLORS)]}"/>'
        )
        made.append(f'<text x="{beside + 14:.0f}" y="{below + 1:.0f}" font-size="10">{escape(line.name)}</text>\n')
    return "".join(made)


Band = list[tuple[float, float, float | None]]
"""By time: from which value to which."""


def stack(lines: Sequence[Line]) -> list[Band]:
    """Each line upon the ones before."""
    floor: dict[float, float] = {}
    made = []
    for line in lines:
        band: Band = []
        for at, value in line.points:
            key = round(at, 1)
            base = floor.get(key, 0.0)
            band.append((at, base, None if value is None else base + value))
            floor[key] = base + (value or 0.0)
        made.append(band)
    return made


def runs(points: Band) -> list[list[tuple[float, float, float]]]:
    """The parts between gaps."""
    found: list[list[tuple[float, float, float]]] = [[]]
    for at, base, value in points:
        if value is None:
            found.append([])
        else:
            found[-1].append((at, base, value))
    return [run for run in found if run]


def scale(most: float, unit: str) -> tuple[float, list[tuple[float, str]]]:
    """The top of an axis that holds `most`, and its ticks in words."""
    factor, name = next(
        ((factor, name) for factor, name in _UNITS.get(unit, ()) if most >= factor), _UNITS.get(unit, ((1.0, ""),))[-1]
    )
    shown = most / factor
    power = 10 ** math.floor(math.log10(shown / 4))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if shown <= 4 * power * each)
    count = max(1, math.ceil(shown / step - 1e-9))
    space = "" if name in ("%", "/s") else " "
    ticks = [(number * step * factor, f"{short(number * step)}{space}{name}".strip()) for number in range(count + 1)]
    return count * step * factor, ticks


def short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def minutes(span: float) -> list[float]:
    """The marks of the time axis."""
    whole = span / 60
    step = next((each for each in (0.5, 1, 2, 5, 10, 30, 60) if whole / each <= 6), 120)
    return [number * step for number in range(int(whole / step) + 1)]
