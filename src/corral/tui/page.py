"""A page over the main screen: a log, a story, the events or the help, to be scrolled. No clock, no terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from corral.cli.terminal import cells, printable
from corral.lazy_dataclass import dataclass
from corral.tui.spans import Line, beside, cut, fill, joined, line
from corral.tui.view import ORDERS

KEPT_LINES = 5000

KEYS = (
    ("up, down, j, k", "choose a model; PgUp, PgDn, Home and End go further"),
    ("s", "start it now"),
    ("x", "stop it; asks first when it is busy, and what runs may end"),
    ("r", "stop it and start it again; asks as x does"),
    ("l", "what its engine writes, followed"),
    ("y, Enter", "its story: what happened to it, and why"),
    ("e", "all events, followed"),
    ("o, O", f"sort by the next, or the one before: {', '.join(ORDERS)}"),
    ("i", "the other way round"),
    ("a", "show what is stopped too, or not"),
    ("Space", "the picture stands still, or goes on"),
    ("?, h", "this page"),
    ("Esc, q", "back; q in the main picture leaves"),
    ("Ctrl-C", "leaves from anywhere"),
)
WORDS = (
    ("bars", "what each of Corral's models holds (█ and ▓ in turn), what others hold (▒), what is free (·)"),
    ("TOK/S", "tokens written a second, over the last ten seconds"),
    ("BUSY, WAIT", "requests that are answered, of slots; requests that wait"),
    (
        "TTFT",
        "time to the first token over the last five minutes: half are faster than P50, one in twenty slower than P95",
    ),
    ("CTX", "how full the fullest slot's context is"),
    ("RST", "how often it was started again after it had failed"),
    ("UNTIL", "when idleness stops it"),
    ("▲", "it does without what it should have, such as a GPU; below the table stands why"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of text before it is wrapped; what goes on in a second line is set in by `indent`."""

    text: str
    style: str = ""
    indent: int = 0


class Page:
    """Rows, where they are scrolled to, and whether it stays at their end. `number` tells pages apart."""

    def __init__(self, number: int, title: str, *, model: str | None = None, follows: bool = False) -> None:
        self.number = number
        self.title = title
        self.model = model
        self.at_end = follows
        self.notice = ""
        self._rows: list[Row] = []
        self._wrapped: list[tuple[Row, str]] = []
        self._width = 0
        self._height = 1
        self._top = 0

    def add(self, rows: Iterable[Row]) -> None:
        new = list(rows)
        self._rows += new
        if self._width:
            self._wrapped += [(row, part) for row in new for part in wrap(row, self._width)]
        if len(self._rows) > KEPT_LINES:
            self._rows = self._rows[-KEPT_LINES * 3 // 4 :]
            before = len(self._wrapped)
            self._wrap()
            self._top = max(0, self._top - (before - len(self._wrapped)))

    def put(self, rows: Iterable[Row]) -> None:
        """These instead of all there are."""
        self._rows = list(rows)
        self._wrap()

    def scroll(self, key: str) -> None:
        page = max(1, self._height - 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "b": -page, "pagedown": page, " ": page}
        last = self._last_top()
        top = min(self._top, last) if not self.at_end else last
        if key in ("home", "g"):
            top = 0
        elif key in ("end", "G"):
            top = last
        else:
            top += steps.get(key, 0)
        self._top = max(0, min(last, top))
        self.at_end = self._top >= last

    def lines(self, width: int, height: int) -> list[Line]:
        """Exactly `height` lines."""
        if width != self._width:
            self._width = width
            self._wrap()
        self._height = max(1, height - 2)
        last = self._last_top()
        top = last if self.at_end else min(self._top, last)
        shown: list[Line] = [line((part, row.style)) for row, part in self._wrapped[top : top + self._height]]
        if not shown and self.notice:
            shown = [cut(line((self.notice, "dim")), width)]
        shown += [()] * (self._height - len(shown))
        head = fill(line((f" {self.title}", "reverse bold")), width, "reverse bold")
        return [head, *shown, self._foot(top, width)][:height]

    def _foot(self, top: int, width: int) -> Line:
        keys = [("Esc", "back"), ("PgUp PgDn", "scroll"), ("g G", "begin, end")]
        parts = joined([line((key, "bold"), f" {what}") for key, what in keys])
        total = len(self._wrapped)
        where = f"{min(total, top + self._height)}/{total}{' at its end' if self.at_end else ''}"
        return beside((*line(" "), *parts), line((where, "dim")), width)

    def _last_top(self) -> int:
        return max(0, len(self._wrapped) - self._height)

    def _wrap(self) -> None:
        self._wrapped = [(row, part) for row in self._rows for part in wrap(row, self._width)] if self._width else []


def wrap(row: Row, width: int) -> list[str]:
    """The row in lines of at most `width` columns."""
    text = printable(row.text).expandtabs()
    if cells(text) <= width:
        return [text]
    if text.isascii():
        return textwrap.wrap(
            text, width, subsequent_indent=" " * min(row.indent, width // 2), drop_whitespace=True, tabsize=8
        )
    parts, part = [], ""
    for char in text:
        if cells(part + char) > width:
            parts.append(part)
            part = " " * min(row.indent, width // 2)
        part += char
    return [*parts, part]


def help_rows() -> list[Row]:
    def row(name: str, what: str) -> Row:
        return Row(f"  {name:<15} {what}", "", 18)

    more = Row("  A wider terminal shows more columns, a higher one more models and events.", "dim")
    return [*(row(*each) for each in KEYS), Row(""), *(row(*each) for each in WORDS), Row(""), more]
