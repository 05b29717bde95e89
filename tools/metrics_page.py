"""Writes the table of metrics in docs/metrics.md from the catalogue: `python -m tools.metrics_page`."""

from __future__ import annotations

import re
from pathlib import Path

from corral.metrics.catalogue import METRICS, Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_TABLE = re.compile(r"(<!-- metrics -->\n).*?(<!-- /metrics -->)", re.DOTALL)


def page(before: str) -> str:
    """The page with the table as it is now."""
    rows = ["| metric | kind | labels | what it is |", "| --- | --- | --- | --- |", *map(_row, METRICS)]
    return _TABLE.sub(lambda found: f"{found[1]}{chr(10).join(rows)}\n{found[2]}", before)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.words} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
