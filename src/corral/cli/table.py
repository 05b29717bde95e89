"""Tables: rows of words laid out in columns, for a terminal of a given width or for a pipe. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corral.cli.terminal import cells, printable, shorten, style
from corral.lazy_dataclass import dataclass

GAP = "  "
LEAST_CELLS = 8
"""A column that may be cut keeps at least this many."""


@dataclass(frozen=True, slots=True)
class Column:
    """`rank` 0 is never left out; of the others, the highest goes first when the terminal is narrow."""

    title: str
    rank: int = 0
    right: bool = False
    cut: bool = False  # may be cut to fit, once nothing is left to leave out


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with the styles it is shown in on a terminal with colours."""

    text: str
    styles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Laid:
    """The lines to print, and the titles of the columns for which there was no room."""

    lines: list[str]
    left_out: list[str]


def lay_out(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], *, width: int | None, color: bool = False
) -> Laid:
    """The table as lines. Without a `width` (a pipe) every column and every value is whole."""
    grid = [[_clean(value) for value in row] for row in rows]
    kept = list(range(len(columns)))
    left_out: list[str] = []
    while width is not None and _total(columns, grid, kept) > width:
        spare = [i for i in kept if columns[i].rank > 0]
        if not spare:
            break
        drop = max(spare, key=lambda i: (columns[i].rank, i))
        kept.remove(drop)
        left_out.append(columns[drop].title)
    limits = {i: _widest(columns, grid, i) for i in kept}
    if width is not None:
        _cut_to(width, columns, kept, limits)
    head = [Cell(column.title, ("bold",)) for column in columns]
    lines = [_line([head[i] for i in kept], [columns[i] for i in kept], [limits[i] for i in kept], color)]
    for row in grid:
        lines.append(_line([row[i] for i in kept], [columns[i] for i in kept], [limits[i] for i in kept], color))
    return Laid(lines, left_out)


def _clean(value: Cell | str) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return Cell(" ".join(printable(cell.text).split()) or "-", cell.styles)


def _widest(columns: Sequence[Column], grid: Sequence[Sequence[Cell]], index: int) -> int:
    return max([cells(columns[index].title), *(cells(row[index].text) for row in grid)])


def _total(columns: Sequence[Column], grid: Sequence[Sequence[Cell]], kept: Sequence[int]) -> int:
    return sum(_widest(columns, grid, i) for i in kept) + len(GAP) * (len(kept) - 1)


def _cut_to(width: int, columns: Sequence[Column], kept: Sequence[int], limits: dict[int, int]) -> None:
    over = sum(limits.values()) + len(GAP) * (len(kept) - 1) - width
    for i in sorted((i for i in kept if columns[i].cut), key=lambda i: -limits[i]):
        if over <= 0:
            return
        given = min(over, max(0, limits[i] - LEAST_CELLS))
        limits[i] -= given
        over -= given


def _line(row: Sequence[Cell], columns: Sequence[Column], limits: Sequence[int], color: bool) -> str:
    parts = []
    for cell, column, limit in zip(row, columns, limits, strict=True):
        text = shorten(cell.text, limit)
        space = " " * (limit - cells(text))
        shown = style(text, *cell.styles, on=color)
        parts.append(space + shown if column.right else shown + space)
    return GAP.join(parts).rstrip()
