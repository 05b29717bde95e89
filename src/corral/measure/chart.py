"""Charts of a report: which there are, and where each line, dot and word of one goes. Pure; others draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal

from corral.lazy_dataclass import dataclass
from corral.measure.figures import DEPTH, KINDS, RATE, REQUESTS, Figure
from corral.measure.report import Report
from corral.units import show_bytes

COLOURS: Final = ("#1f77b4", "#d95f02", "#2ca02c", "#9467bd", "#8c564b", "#17879c", "#c2185b", "#7f7f7f")
INK, FAINT, PAPER = "#222222", "#bbbbbb", "#ffffff"

_DRAWN: Final = {
    REQUESTS: ("output_tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "itl_p99_ms", "joules_per_token"),
    RATE: ("output_tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "itl_p99_ms"),
    DEPTH: ("prompt_per_s", "generation_per_s"),
}
_AXES: Final = {REQUESTS: "requests at once", RATE: "requests a second", DEPTH: "tokens already in the context"}


@dataclass(frozen=True, slots=True)
class Dot:
    """A median, and the range of its runs."""

    at: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of all subjects. On the axis, values stand at equal distances."""

    name: str
    title: str
    unit: str
    axis: str
    series: Mapping[str, Sequence[Dot]]

    @property
    def places(self) -> list[float]:
        return sorted({dot.at for dots in self.series.values() for dot in dots})

    @property
    def most(self) -> float:
        return max((dot.high for dots in self.series.values() for dot in dots), default=0.0)


def charts(report: Report) -> list[Chart]:
    """Those worth drawing: what was measured at several places, or of several subjects."""
    found = []
    for part, names in _DRAWN.items():
        for name in names:
            series = {
                subject: dots for subject in report.subjects if (dots := _dots(report.figures, subject, part, name))
            }
            if len(series) > 1 or any(len(dots) > 1 for dots in series.values()):
                kind = KINDS[name]
                found.append(Chart(name, kind.words, kind.unit, _AXES[part], series))
    return found


def _dots(figures: Sequence[Figure], subject: str, part: str, name: str) -> list[Dot]:
    found = [
        Dot(each.at, each.median, min(each.values), max(each.values))
        for each in figures
        if each.subject == subject and each.part == part and each.name == name and each.at is not None and each.values
    ]
    return sorted(found, key=lambda dot: dot.at)


def ticks(most: float, about: int = 4) -> list[float]:
    """Round values from 0 to the first at or above `most`."""
    if not most > 0 or not math.isfinite(most):
        return [0.0, 1.0]
    rough = most / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    count = math.ceil(most / step * (1 - 1e-9))
    return [step * number for number in range(max(1, count) + 1)]


def short(value: float, unit: str = "") -> str:
    """A value for people, in three digits or so."""
    if not math.isfinite(value):
        return "-"
    if unit == "bytes":
        return show_bytes(round(value))
    size = abs(value)
    if size >= 10_000_000:
        return f"{value / 1e6:.0f} M"
    if size >= 100 or value == round(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Line:
    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    wide: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    x: float
    y: float  # of the base line
    text: str
    anchor: Anchor = "start"
    size: int = 12
    colour: str = INK
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Disc:
    x: float
    y: float
    r: float
    colour: str
    says: str  # what it stands for


Mark = Line | Words | Disc
WIDE, HIGH = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 62


def marks(chart: Chart, colours: Mapping[str, str]) -> list[Mark]:
    """Everything of one chart, in a space of WIDE by HIGH."""
    places = chart.places
    steps = ticks(chart.most)
    inner, tall = WIDE - _LEFT - _RIGHT, HIGH - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + inner * (places.index(at) + 0.5) / len(places)

    def y(value: float) -> float:
        return _TOP + tall * (1 - value / steps[-1])

    found: list[Mark] = [Words(_LEFT, 20, f"{chart.title} ({chart.unit})" if chart.unit else chart.title, bold=True)]
    for step in steps:
        found.append(Line(_LEFT, y(step), WIDE - _RIGHT, y(step), FAINT))
        found.append(Words(_LEFT - 6, y(step) + 4, short(step), "end", 11))
    for at in places:
        found.append(Words(x(at), HIGH - _BOTTOM + 16, short(at), "middle", 11))
    found.append(Words(_LEFT + inner / 2, HIGH - _BOTTOM + 32, chart.axis, "middle", 11))
    along = float(_LEFT)
    for name, dots in chart.series.items():
        colour = colours[name]
        for one, other in pairwise(dots):
            found.append(Line(x(one.at), y(one.value), x(other.at), y(other.value), colour, 2))
        for dot in dots:
            found.append(Line(x(dot.at), y(dot.low), x(dot.at), y(dot.high), colour))
            says = f"{name}, {short(dot.at)} {chart.axis}: {short(dot.value)} {chart.unit}".strip()
            found.append(Disc(x(dot.at), y(dot.value), 3.5, colour, f"{says} ({short(dot.low)} to {short(dot.high)})"))
        found.append(Disc(along + 5, HIGH - 12, 4, colour, name))
        found.append(Words(along + 13, HIGH - 8, name, "start", 11))
        along += 26 + 6.5 * len(name)
    return found


def colours_of(report: Report) -> dict[str, str]:
    """The same for a subject in every chart."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(report.subjects)}
