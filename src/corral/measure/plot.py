"""A chart in characters, for a terminal. Pure."""

from __future__ import annotations

from typing import Final

from corral.measure.chart import Chart, short, ticks

MARKS: Final = "●▲■◆○△□◇"
TOGETHER: Final = "✳"


def lines(chart: Chart, width: int = 72, height: int = 9) -> list[str]:
    """No wider than `width`; signs tell the subjects apart, so that it reads without colours."""
    places, steps = chart.places, ticks(chart.most)
    labels = {_row(step, steps[-1], height): short(step) for step in steps}
    margin = max(len(text) for text in labels.values()) + 1
    inner = max(width - margin - 2, len(places))
    grid = [[" "] * inner for _ in range(height)]
    for number, dots in enumerate(chart.series.values()):
        sign = MARKS[number % len(MARKS)]
        for dot in dots:
            row, column = _row(dot.value, steps[-1], height), _column(places.index(dot.at), len(places), inner)
            grid[row][column] = sign if grid[row][column] in (" ", sign) else TOGETHER
    found = [f"{chart.title} ({chart.unit})" if chart.unit else chart.title]
    found += [f"{labels.get(row, ''):>{margin}} │{''.join(cells)}".rstrip() for row, cells in enumerate(grid)]
    found.append(" " * margin + " └" + "─" * inner)
    axis = [" "] * inner
    for number, at in enumerate(places):
        text = short(at)
        begins = min(max(0, _column(number, len(places), inner) - len(text) // 2), inner - len(text))
        if begins >= 0 and all(char == " " for char in axis[max(0, begins - 1) : begins + len(text)]):
            axis[begins : begins + len(text)] = text
    found.append((" " * (margin + 2) + "".join(axis)).rstrip())
    names = "  ".join(f"{MARKS[number % len(MARKS)]} {name}" for number, name in enumerate(chart.series))
    return [*found, f"{' ' * (margin + 2)}{chart.axis}   {names}"[: max(width, 20)]]


def _row(value: float, most: float, height: int) -> int:
    return height - 1 - round(min(1.0, max(0.0, value / most)) * (height - 1))


def _column(number: int, count: int, inner: int) -> int:
    return min(inner - 1, int((number + 0.5) / count * inner))
