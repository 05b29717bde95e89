"""`Writer`: samples in, text as Prometheus reads it out: its own format 0.0.4, and OpenMetrics 1.0. Pure.

What stands before a value is made once for each series and kept, since it is most of the text and never changes; a
histogram is written anew only when it has changed. So thousands of series cost milliseconds, and the text comes in
small pieces, between which whoever writes it may do something else.

Sources: Prometheus, docs/instrumenting/exposition_formats.md; OpenMetrics 1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from corral.metrics.catalogue import Metric
from corral.metrics.sums import Histogram, Labels

V = TypeVar("V")

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_PIECE: Final = 64
"""Samples of a piece, and histograms, each of which counts for some more."""
_HISTOGRAMS: Final = 4
_MOST_KEPT: Final = 100_000


class Writer:
    """Writes one of the two formats, again and again."""

    def __init__(self, *, openmetrics: bool) -> None:
        self.openmetrics = openmetrics
        self.kind = OPENMETRICS if openmetrics else PLAIN
        self._heads: dict[str, str] = {}
        self._lines: dict[tuple[str, Labels], str] = {}
        self._bounds: dict[tuple[str, Labels], list[str]] = {}
        self._written: dict[tuple[str, Labels], tuple[int, float, str]] = {}

    def samples(self, metric: Metric, values: Mapping[Labels, float]) -> Iterator[str]:
        """All series of a counter, a gauge or an info."""
        if not values:
            return
        yield self._head(metric)
        piece: list[str] = []
        for labels, value in list(values.items()):
            key = (metric.name, labels)
            if (line := self._lines.get(key)) is None:
                line = _keep(self._lines, key, f"{metric.name}{_set(metric.labels, labels)} ")
            piece.append(f"{line}{value if type(value) is int else number(value)}\n")
            if len(piece) >= _PIECE:
                yield "".join(piece)
                piece.clear()
        yield "".join(piece)

    def histograms(self, metric: Metric, values: Mapping[Labels, Histogram]) -> Iterator[str]:
        """All series of a histogram."""
        if not values:
            return
        yield self._head(metric)
        piece: list[str] = []
        for labels, histogram in list(values.items()):
            piece.append(self._histogram(metric, labels, histogram))
            if len(piece) >= _HISTOGRAMS:
                yield "".join(piece)
                piece.clear()
        yield "".join(piece)

    def end(self) -> str:
        """What comes after everything."""
        return "# EOF\n" if self.openmetrics else ""

    def _histogram(self, metric: Metric, labels: Labels, histogram: Histogram) -> str:
        key, count = (metric.name, labels), histogram.count
        before = self._written.get(key)
        if before is not None and before[:2] == (count, histogram.sum):
            return before[2]
        if (bounds := self._bounds.get(key)) is None:
            bounds = _keep(self._bounds, key, _bounds(metric, labels))
        below, text = 0, []
        for line, more in zip(bounds, histogram.counts, strict=False):
            below += more
            text.append(f"{line}{below}\n")
        text.append(f"{bounds[-2]}{number(histogram.sum)}\n{bounds[-1]}{count}\n")
        return _keep(self._written, key, (count, histogram.sum, "".join(text)))[2]

    def _head(self, metric: Metric) -> str:
        if (head := self._heads.get(metric.name)) is None:
            head = self._heads[metric.name] = family(metric.name, metric.kind, metric.words, self.openmetrics)
        return head


def _keep(kept: dict[tuple[str, Labels], V], key: tuple[str, Labels], value: V) -> V:
    if len(kept) >= _MOST_KEPT:  # of models and devices that came and went
        kept.clear()
    kept[key] = value
    return value


def family(name: str, kind: str, words: str, openmetrics: bool) -> str:
    """The lines that say what a family is."""
    if openmetrics:
        ending = {"counter": "_total", "info": "_info"}.get(kind, "")
        if ending and not name.endswith(ending):
            kind = "unknown"  # its samples could not have their name
        elif ending:
            name = name.removesuffix(ending)
        words = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    else:
        kind = {"info": "gauge", "unknown": "untyped"}.get(kind, kind)
        words = words.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {words}\n# TYPE {name} {kind}\n"


def number(value: float) -> str:
    """`value` as both formats have it."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def label(name: str, value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{value}"'


def _set(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(label(name, value) for name, value in zip(names, values, strict=True)) + "}"


def _bounds(metric: Metric, labels: Labels) -> list[str]:
    """What stands before each bucket's count, then before the sum and the count."""
    les = [*(number(float(bound)) for bound in metric.buckets), "+Inf"]
    lines = [f"{metric.name}_bucket{_set((*metric.labels, 'le'), (*labels, le))} " for le in les]
    own = _set(metric.labels, labels)
    return [*lines, f"{metric.name}_sum{own} ", f"{metric.name}_count{own} "]
