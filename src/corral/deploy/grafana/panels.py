"""Panels: one picture each, as Grafana's JSON. Pure.

Source of the members: the schemas in grafana/grafana, `kinds/dashboard` and `public/app/plugins/panel/*/panelcfg.cue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final, Literal

from corral.lazy_dataclass import dataclass

Kind = Literal["timeseries", "stat", "table", "heatmap", "row"]
Json = dict[str, Any]

SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
RATE: Final = "$__rate_interval"
TOKENS_PER_S: Final = "suffix: tok/s"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression; `legend` names its series by their labels. `instant`: only the last value is asked for."""

    expr: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture, `width` of 24 columns wide. `words` say what it shows and when to look at it."""

    kind: Kind
    title: str
    words: str
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 8
    height: int = 8
    stack: bool = False
    most: float | None = None
    limits: Sequence[tuple[float, str]] = ()  # from which value on which colour; below the first: green
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # text and colour of single values
    columns: Mapping[str, str] = field(default_factory=dict)  # of a table: the label or value, and what it is headed

    def json(self, number: int, x: int, y: int) -> Json:
        """The panel at a place of the grid."""
        place = {"h": self.height, "w": self.width, "x": x, "y": y}
        made: Json = {"id": number, "type": self.kind, "title": self.title, "gridPos": place}
        if self.kind == "row":
            return {**made, "collapsed": False, "panels": []}
        return {
            **made,
            "description": self.words,
            "datasource": SOURCE,
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": self._options(),
            "targets": [self._target(query, chr(ord("A") + place)) for place, query in enumerate(self.queries)],
            **({"transformations": _table_steps(self.columns)} if self.kind == "table" else {}),
        }

    def _target(self, query: Query, name: str) -> Json:
        formats = {"heatmap": "heatmap", "table": "table"}
        instant = query.instant or self.kind in ("stat", "table")
        return {
            "refId": name,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "format": formats.get(self.kind, "time_series"),
            "instant": instant,
            "range": not instant,
            "legendFormat": query.legend or "__auto",
        }

    def _defaults(self) -> Json:
        steps: list[Json] = [{"color": GREEN, "value": None}]
        steps += [{"color": color, "value": value} for value, color in self.limits]
        made: Json = {
            "unit": self.unit,
            "mappings": _mappings(self.names),
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "thresholds" if self.kind in ("stat", "table") else "palette-classic"},
        }
        if self.kind == "timeseries":
            made |= {"min": 0, "custom": self._lines()}
        elif self.kind == "table":
            made["custom"] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False}
        elif self.kind == "heatmap":
            made["custom"] = {"hideFrom": _nowhere(), "scaleDistribution": {"type": "linear"}}
        if self.most is not None:
            made["max"] = self.most
        return made

    def _lines(self) -> Json:
        return {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 40 if self.stack else 8,
            "gradientMode": "none",
            "showPoints": "never",
            "pointSize": 4,
            "spanNulls": False,
            "insertNulls": False,
            "axisPlacement": "auto",
            "axisLabel": "",
            "barAlignment": 0,
            "scaleDistribution": {"type": "linear"},
            "stacking": {"group": "A", "mode": "normal" if self.stack else "none"},
            "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
            "hideFrom": _nowhere(),
        }

    def _options(self) -> Json:
        if self.kind == "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "textMode": "auto",
                "orientation": "auto",
                "wideLayout": True,
            }
        if self.kind == "table":
            return {"showHeader": True, "cellHeight": "sm", "frameIndex": 0, "footer": {"show": False, "reducer": []}}
        if self.kind == "heatmap":
            return _heat(self.unit)
        return {
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }

    def _overrides(self) -> list[Json]:
        """Of a table: only the value has the unit and the colours; the other columns are names."""
        if self.kind != "table" or "Value" not in self.columns:
            return []
        head = self.columns["Value"]
        return [
            {
                "matcher": {"id": "byName", "options": head},
                "properties": [{"id": "custom.cellOptions", "value": {"type": "color-text"}}],
            }
        ]


def row(title: str) -> Panel:
    """A heading over the panels that follow."""
    return Panel("row", title, "", (), width=24, height=1)


def lines(title: str, words: str, unit: str, *queries: Query, **more: Any) -> Panel:
    return Panel("timeseries", title, words, queries, unit, **more)


def stat(title: str, words: str, unit: str, expr: str, legend: str = "", **more: Any) -> Panel:
    return Panel("stat", title, words, (Query(expr, legend),), unit, **{"width": 4, "height": 4, **more})


def heat(title: str, words: str, metric: str, where: str, **more: Any) -> Panel:
    """A histogram over time: how many observations came in each of its buckets."""
    expr = f"sum by (le) (increase({metric}_bucket{{{where}}}[$__rate_interval]))"
    return Panel("heatmap", title, words, (Query(expr, "{{le}}"),), "s", **more)


def table(title: str, words: str, unit: str, expr: str, columns: Mapping[str, str], **more: Any) -> Panel:
    return Panel("table", title, words, (Query(expr),), unit, columns=columns, **more)


def quantiles(
    metric: str, where: str, by: str = "", shares: Sequence[float] = (0.5, 0.95, 0.99), what: str = ""
) -> list[Query]:
    """Percentiles of a histogram, over all or by a label; `what` tells them from others in the same panel."""
    label = f"{by}, " if by else ""
    name = f" {{{{{by}}}}}" if by else ""
    lead = f"{what}, " if what else ""
    return [
        Query(
            f"histogram_quantile({share}, sum by ({label}le) (rate({metric}_bucket{{{where}}}[$__rate_interval])))",
            f"{lead}p{share * 100:g}{name}",
        )
        for share in shares
    ]


def _mappings(names: Mapping[str, tuple[str, str]]) -> list[Json]:
    if not names:
        return []
    options = {
        value: {"text": text, "color": color, "index": place}
        for place, (value, (text, color)) in enumerate(names.items())
    }
    return [{"type": "value", "options": options}]


def _nowhere() -> Json:
    return {"legend": False, "tooltip": False, "viz": False}


def _heat(unit: str) -> Json:
    return {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {
            "mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64,
            "fill": "dark-orange", "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }  # fmt: skip


def _table_steps(columns: Mapping[str, str]) -> list[Json]:
    """Only these columns, in this order, under these heads."""
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "includeByName": {},
                "indexByName": {name: place for place, name in enumerate(columns)},
                "renameByName": dict(columns),
            },
        },
    ]
