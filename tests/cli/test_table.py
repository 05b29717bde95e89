"""Tables: what fits, what is left out, what is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.cli.table import Cell, Column, lay_out
from corral.cli.terminal import cells, printable, shorten

COLUMNS = [
    Column("NAME", cut=True),
    Column("STATE"),
    Column("SIZE", rank=1, right=True),
    Column("ENGINE", rank=3),
    Column("PORT", rank=2, right=True),
]
ROWS: list[list[Cell | str]] = [
    ["demo", Cell("ready", ("green",)), "3 MiB", "llama.cpp", "8001"],
    ["b" * 40, "stopped", "10 GiB", "vllm", ""],
]


def test_whole() -> None:
    """Without a width every column and value is whole, numbers are right-aligned and absent values are a hyphen."""
    laid = lay_out(COLUMNS, ROWS, width=None)
    assert laid.lines == [
        "NAME                                      STATE      SIZE  ENGINE     PORT",
        "demo                                      ready     3 MiB  llama.cpp  8001",
        f"{'b' * 40}  stopped  10 GiB  vllm          -",
    ]
    assert laid.left_out == []


def test_narrow() -> None:
    """In 40 columns the least important columns go first, then long names are cut."""
    laid = lay_out(COLUMNS, ROWS, width=40)
    assert laid.left_out == ["ENGINE", "PORT", "SIZE"]
    assert laid.lines[2] == f"{'b' * 30}…  stopped"


def test_colors() -> None:
    """Styles do not count as columns."""
    plain, colored = (lay_out(COLUMNS, ROWS, width=80, color=color).lines for color in (False, True))
    assert "\x1b[32mready\x1b[0m" in colored[1]
    strip = str.maketrans("", "", "\x1b")
    assert colored[0].translate(strip).replace("[1m", "").replace("[0m", "") == plain[0]


words = st.text(max_size=60)


@given(st.lists(st.tuples(words, words, words, words, words), max_size=5), st.integers(24, 120))
def test_fits(rows: list[tuple[str, ...]], width: int) -> None:
    """Whatever the values are, lines hold no control characters, and only columns that may not be cut stick out."""
    rows = [(name, "ready", *rest) for name, _, *rest in rows]
    laid = lay_out(COLUMNS, rows, width=width)
    assert len(laid.lines) == len(rows) + 1
    assert all(cells(line) <= width for line in laid.lines)
    assert all(printable(line) == line and "\n" not in line for line in laid.lines)


@given(words, st.integers(0, 30))
def test_shorten(text: str, limit: int) -> None:
    """A shortened text has at most the given columns and is a beginning of the whole."""
    short = shorten(text, limit)
    assert cells(short) <= limit
    assert text.startswith(short.removesuffix("…")) or short == text
