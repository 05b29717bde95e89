"""Lines of the screen as styled spans, and how they are cut and set beside each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from corral.cli.terminal import cells, printable, shorten

Span = tuple[str, str]
"""A text and its style: "", or words such as "bold red"."""
Line = tuple[Span, ...]


def clean(text: str) -> str:
    """`text` of a server on one line, without what steers terminals."""
    return " ".join(printable(text).split())


def line(*parts: str | Span) -> Line:
    return tuple((part, "") if isinstance(part, str) else part for part in parts)


def text_of(spans: Iterable[Span]) -> str:
    return "".join(text for text, _ in spans)


def wide(spans: Iterable[Span]) -> int:
    """Columns that the spans take."""
    return sum(cells(text) for text, _ in spans)


def cut(spans: Line, width: int) -> Line:
    """The spans in at most `width` columns; what is cut off leaves an ellipsis."""
    if wide(spans) <= width:
        return spans
    kept: list[Span] = []
    left = width
    for text, style in spans:
        if cells(text) >= left:
            # This span may fit exactly, but something comes after it: room for the ellipsis is taken from it.
            kept.append((shorten(text + "  ", left), style))
            break
        kept.append((text, style))
        left -= cells(text)
    return tuple(kept)


def fill(spans: Line, width: int, style: str = "") -> Line:
    """The spans in exactly `width` columns."""
    short = cut(spans, width)
    room = width - wide(short)
    return (*short, (" " * room, style)) if room > 0 else short


def styled(spans: Line, style: str) -> Line:
    """The same text, all of it in one style."""
    return ((text_of(spans), style),)


def beside(left: Line, right: Line, width: int) -> Line:
    """`left` and, at the end of the line, `right`; where both have no room, `left` is cut."""
    room = width - wide(right) - 1
    if room < 8:
        return cut(left, width)
    return (*fill(left, room), (" ", ""), *right)


def joined(parts: Iterable[Line], gap: str = "  ") -> Line:
    spans: list[Span] = []
    for part in parts:
        if part:
            spans += [(gap, ""), *part] if spans else part
    return tuple(spans)


def column(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` columns."""
    short = shorten(text, width)
    space = " " * (width - cells(short))
    return space + short if right else short + space
