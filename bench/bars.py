"""Bars as an SVG of our own, readable on a light page and a dark one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COLOURS = ("#1f77b4", "#d98c1f", "#7f7f7f", "#2ca02c")
_BAR, _GAP, _HIGH, _TOP, _BOTTOM, _LEFT = 20, 22, 130, 40, 36, 16


@dataclass(frozen=True)
class Group:
    """One chart: bars by series, for each of its categories."""

    title: str
    values: Mapping[str, Mapping[str, float]]
    log: bool = False


def write_bars(file: Path, groups: Sequence[Group]) -> None:
    """All of `groups` below each other, with one legend."""
    series = list(next(iter(groups[0].values.values())))
    wide = 2 * _LEFT + max(len(group.values) for group in groups) * (len(series) * _BAR + _GAP)
    wide = max(wide, 420)
    each = _TOP + _HIGH + _BOTTOM
    rows = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{each * len(groups) + 24}" '
            'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="#fff"/>']  # fmt: skip
    for number, name in enumerate(series):
        x = _LEFT + number * 80
        rows.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{COLOURS[number]}"/>')
        rows.append(f'<text x="{x + 14}" y="17">{name}</text>')
    for number, group in enumerate(groups):
        rows += _chart(group, 24 + number * each)
    file.write_text("\n".join([*rows, "</svg>"]) + "\n", encoding="utf-8")


def _chart(group: Group, top: int) -> list[str]:
    most = max(value for values in group.values.values() for value in values.values()) or 1.0
    base = top + _TOP + _HIGH

    def high(value: float) -> float:
        if group.log:
            return _HIGH * math.log1p(max(0.0, value)) / math.log1p(most)
        return _HIGH * value / most

    rows = [f'<text x="{_LEFT}" y="{top + 16}" font-weight="bold">{group.title}</text>']
    x = _LEFT
    for category, values in group.values.items():
        for number, value in enumerate(values.values()):
            tall = high(value)
            rows.append(
                f'<rect x="{x}" y="{base - tall:.1f}" width="{_BAR - 2}" height="{tall:.1f}" fill="{COLOURS[number]}"/>'
            )
            text = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
            at = f'x="{x + _BAR / 2 - 1}" y="{base - tall - 3:.1f}"'
            rows.append(f'<text {at} text-anchor="middle" font-size="9">{text}</text>')
            x += _BAR
        middle = x - len(values) * _BAR / 2
        rows.append(f'<text x="{middle}" y="{base + 14}" text-anchor="middle">{category}</text>')
        x += _GAP
    rows.append(f'<line x1="{_LEFT}" y1="{base}" x2="{x - _GAP}" y2="{base}" stroke="#444"/>')
    return rows
