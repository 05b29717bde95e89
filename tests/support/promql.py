"""Enough of PromQL to tell which metrics and labels an expression names. promtool and Prometheus judge the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?")
_GROUPED = re.compile(r"\b(by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_WORDS = frozenset(
    ("sum", "max", "min", "count", "avg", "rate", "increase", "histogram_quantile", "predict_linear", "vector", "time",
     "or", "and", "unless", "offset", "by", "on", "without", "ignoring", "label_values")
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """What an expression names."""

    selected: tuple[tuple[str, tuple[str, ...]], ...]  # metrics, each with the labels it is narrowed by
    grouped: frozenset[str]  # labels of `by` and `on`

    @property
    def metrics(self) -> set[str]:
        return {name for name, _ in self.selected}


def names_in(expr: str) -> Named:
    """The metrics and labels that `expr` names; Grafana's variables may be in it."""
    bare = _STRING.sub('""', expr)
    bare = re.sub(r"\boffset\s+\$?\w+", "", _RANGE.sub("", bare))
    grouped = {label.strip() for found in _GROUPED.finditer(bare) for label in found[2].split(",")}
    selected = []
    for found in _SELECTED.finditer(_GROUPED.sub(" ", bare)):
        name, braces = found[1], found[2]
        if braces is None and (name in _WORDS or re.fullmatch(r"e?[0-9.]+|x", name)):
            continue
        labels = re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", braces or "")
        selected.append((name, tuple(labels)))
    return Named(tuple(selected), frozenset(grouped - {""}))


def filled_in(expr: str, window: str = "1m", span: str = "5m", **variables: str) -> str:
    """`expr` as Grafana sends it: its own variables, and those of the dashboard, `.*` where nothing is said."""
    expr = expr.replace("$__rate_interval", window).replace("$__range", span)
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ".*"), expr)
