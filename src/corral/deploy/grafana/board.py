"""Dashboards: variables at the top, panels from left to right and downwards. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from corral.deploy.grafana.panels import SOURCE, Json, Panel
from corral.lazy_dataclass import dataclass

COLUMNS: Final = 24
TAG: Final = "corral"
SCHEMA_VERSION: Final = 39
"""Grafana 10.4's; later versions bring older ones up to date when they read them."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard, of the values that `label` of `metric` has."""

    name: str
    title: str
    metric: str  # with what it is narrowed by
    many: bool = True

    @property
    def expr(self) -> str:
        return f"label_values({self.metric}, {self.name})"

    def json(self) -> Json:
        everything = {"text": ["All"], "value": ["$__all"], "selected": True}
        return {
            "name": self.name,
            "label": self.title,
            "type": "query",
            "datasource": SOURCE,
            "definition": self.expr,
            "query": {"qryType": 1, "query": self.expr, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "refresh": 2,  # whenever the time range changes: models come and go
            "sort": 1,
            "regex": "",
            "multi": self.many,
            "includeAll": self.many,
            **({"allValue": ".*"} if self.many else {}),
            "current": everything if self.many else {},
            "options": [],
            "hide": 0,
            "skipUrlSync": False,
        }


INSTANCE: Final = Variable("instance", "Server", "corral_build_info")


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    words: str
    variables: Sequence[Variable]
    panels: Sequence[Panel]
    span: str = "now-1h"

    @property
    def file(self) -> str:
        return f"{self.uid}.json"

    def json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.words,
            "tags": [TAG],
            "editable": True,
            "graphTooltip": 1,  # one crosshair over all panels: what happened at that moment elsewhere
            "timezone": "browser",
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "refresh": "10s",
            "fiscalYearStartMonth": 0,
            "time": {"from": self.span, "to": "now"},
            "timepicker": {},
            "weekStart": "",
            "annotations": {"list": [_grafanas_own(), _alerts()]},
            "links": [_others()],
            "templating": {"list": [_source(), *(each.json() for each in self.variables)]},
            "panels": laid_out(self.panels),
        }

    def text(self) -> str:
        return json.dumps(self.json(), indent=1, ensure_ascii=False) + "\n"


def laid_out(panels: Sequence[Panel]) -> list[Json]:
    """The panels with their places: each beside the one before while there is room, else below the tallest of them."""
    placed: list[Json] = []
    x = y = tallest = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        placed.append(panel.json(number, x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return placed


def _source() -> Json:
    return {
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "regex": "",
        "refresh": 1, "multi": False, "includeAll": False, "current": {}, "options": [], "hide": 0,
        "skipUrlSync": False,
    }  # fmt: skip


def _grafanas_own() -> Json:
    return {
        "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    }  # fmt: skip


ALERTS_EXPR: Final = 'ALERTS{alertname=~"Corral.*", alertstate="firing"}'


def _alerts() -> Json:
    """Where an alert fired, each panel has a mark."""
    return {
        "datasource": SOURCE, "enable": True, "hide": False, "iconColor": "red", "name": "Alerts", "expr": ALERTS_EXPR,
        "titleFormat": "{{alertname}}", "textFormat": "{{model}} {{device}} {{instance}}", "step": "15s",
        "useValueForTime": False,
    }  # fmt: skip


def _others() -> Json:
    return {
        "type": "dashboards", "title": "Corral", "tags": [TAG], "asDropdown": True, "includeVars": True,
        "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
    }  # fmt: skip
