"""The terminal: how wide it is, whether it shows colours, and what may be written to it."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import TextIO

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
# C0 and C1 controls but for tab and newline: what a model or an engine writes must not steer the reader's terminal.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def colored(stream: TextIO, wanted: bool | None, env: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` gets colours: a terminal, not a dumb one, and neither NO_COLOR nor `--no-color` (False)."""
    env = os.environ if env is None else env
    if wanted is False or env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    return stream.isatty()


def style(text: str, *names: str, on: bool) -> str:
    """`text` in the named styles when `on`, else as it is."""
    if not on or not names or not text:
        return text
    return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal behind `stream` (standard output); None when it is no terminal: then nothing is cut."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def printable(text: str) -> str:
    """`text` without control characters other than tab and newline."""
    return text.translate(_CONTROLS)


def cells(text: str) -> int:
    """How many columns `text` takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` columns, its end given up for an ellipsis."""
    if cells(text) <= limit:
        return text
    taken = ""
    for char in text:
        if cells(taken + char) > limit - 1:
            break
        taken += char
    return taken + "…" if limit > 0 else ""
