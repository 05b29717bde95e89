"""The widget that shows lines: it keeps what it drew, and draws again only the lines that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from corral.tui.marks import in_ascii
from corral.tui.spans import Line, text_of

Draw = Callable[[int, int], Sequence[Line]]
"""Lines for a width and a height."""


@lru_cache(64)
def _style(name: str, colors: bool) -> Style:
    style = Style.parse(name) if name else Style.null()
    return style if colors else style.without_color


class Pane(Widget, can_focus=True):
    """All of a screen."""

    DEFAULT_CSS = "Pane { width: 100%; height: 100%; background: ansi_default; color: ansi_default; }"

    def __init__(self, draw: Draw, *, colors: bool, ascii_only: bool) -> None:
        super().__init__()
        self._draw = draw
        self._colors = colors
        self._ascii = ascii_only
        self._lines: list[Line] = []
        self._width = 0

    def redraw(self) -> None:
        """What changed since the last time goes to the terminal."""
        width, height = self.size
        if not width or not height:
            return
        lines = list(self._draw(width, height))[:height]
        before, same = self._lines, width == self._width and len(lines) == len(self._lines)
        self._lines, self._width = lines, width
        if not same:
            self.refresh()
            return
        changed = [Region(0, y, width, 1) for y, line in enumerate(lines) if line != before[y]]
        if changed:
            self.refresh(*changed)

    def on_resize(self, event: events.Resize) -> None:
        self.redraw()

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else ()
        segments = []
        for style, spans in groupby(line, key=itemgetter(1)):  # fewer of them are fewer bytes on the line
            text = text_of(spans)
            segments.append(Segment(in_ascii(text) if self._ascii else text, _style(style, self._colors)))
        return Strip(segments).adjust_cell_length(self.size.width)
