"""Bars, sparklines and the marks of states, and the same in ASCII for terminals that have nothing else. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from corral.tui.spans import Line, Span

SPARKS = "▁▂▃▄▅▆▇█"
OURS, OTHERS, FREE = "█▓", "▒", "·"
POINTER, WARNING, UP, DOWN = "▶", "▲", "↑", "↓"

STATES = {
    "ready": ("●", "green"),
    "starting": ("◐", "yellow"),
    "loading": ("◐", "yellow"),
    "draining": ("◑", "yellow"),
    "stopping": ("◑", "yellow"),
    "backoff": ("✗", "red"),
    "failed": ("✗", "bold red"),
    "sleeping": ("z", "cyan"),
    "stopped": ("○", "dim"),
}
"""A mark and a style for each state: one of the two is there on every terminal, and the word always."""

_ASCII = {
    "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%", "█": "#", "▓": "%", "▒": "=", "·": ".",
    "●": "*", "◐": "~", "◑": "~", "✗": "!", "○": "o", "▶": ">", "▲": "!", "…": "~", "°": " ", "↑": "^",
    "↓": "v", "─": "-", "–": "-", "—": "-", "’": "'", "“": '"', "”": '"', "→": ">", "×": "x", "µ": "u",
}  # fmt: skip


def in_ascii(text: str) -> str:
    """`text` in ASCII, with as many columns: what has no likeness becomes question marks."""
    if text.isascii():
        return text
    return "".join(_likeness(char) for char in text)


def _likeness(char: str) -> str:
    if char.isascii():
        return char
    if char in _ASCII:
        return _ASCII[char]
    if unicodedata.combining(char):
        return ""
    if unicodedata.east_asian_width(char) in "WF":
        return "??"
    bare = unicodedata.normalize("NFKD", char)[0]
    return bare if bare.isascii() else "?"


def wants_ascii(env: Mapping[str, str]) -> bool:
    """Whether the terminal, by what the environment says, shows ASCII only: an old one, or a locale without UTF-8.

    No locale at all is taken for an ssh session that did not pass one on, from a terminal that has UTF-8.
    """
    kind = env.get("TERM", "")
    if kind.startswith(("vt", "ansi", "dumb")) or kind in ("linux", "cons25", "sun"):
        return True
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    _, dot, charset = locale.partition(".")
    return bool(dot) and charset.partition("@")[0].lower().replace("-", "") != "utf8"


def state(name: str) -> tuple[str, str]:
    return STATES.get(name, ("?", ""))


def sparkline(values: Sequence[float], width: int, top: float | None = None) -> str:
    """The last `width` values as bars of up to eight eighths, the newest at the end; nothing at all is a blank."""
    shown = list(values[-width:]) if width > 0 else []
    highest = max([*shown, top or 0.0]) or 1.0
    drawn = "".join(" " if value <= 0 else SPARKS[min(7, int(value / highest * 8))] for value in shown)
    return drawn.rjust(width)


def memory_bar(ours: Sequence[int], others: int, total: int, width: int) -> Line:
    """What each of Corral's models holds of `total` bytes, what others do, and what is free.

    Models alternate between two signs, in their order; whatever holds anything is seen.
    """
    spans: list[Span] = []
    left = width
    for number, size in enumerate(ours):
        taken = min(left, _share(size, total, width))
        spans.append((OURS[number % 2] * taken, "green"))
        left -= taken
    taken = min(left, _share(others, total, width))
    spans += [(OTHERS * taken, "yellow"), (FREE * (left - taken), "dim")]
    return tuple(span for span in spans if span[0])


def bar(share: float, width: int, style: str) -> Line:
    done = round(max(0.0, min(1.0, share)) * width)
    spans: list[Span] = [(OURS[0] * done, style), (FREE * (width - done), "dim")]
    return tuple(span for span in spans if span[0])


def _share(part: int, total: int, width: int) -> int:
    if part <= 0 or total <= 0:
        return 0
    return max(1, min(width, round(part / total * width)))
