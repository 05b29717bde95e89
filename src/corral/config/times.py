"""The `schedule` of a model: windows of the week, read from a models.yaml and written back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from corral.config.scalar import in_words, shorten
from corral.config.settings import Window
from corral.config.values import Unfit

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KEEPS = ("ready", "pin")
_CLOCK = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")
_DAY_MIN = 24 * 60

_TEXT: dict[str, Any] = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"days": _TEXT, "from": _TEXT, "to": _TEXT, "keep": {"enum": list(KEEPS)}},
        "additionalProperties": False,
    },
}


def windows(value: Any) -> tuple[Window, ...]:
    """A list of windows; one alone need not be in a list."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise Unfit(f"must be a list of windows such as {{days: mon-fri, from: 08:00}}, not {in_words(value)}")
    return tuple(each if isinstance(each, Window) else _window(each) for each in value)


def _window(value: Any) -> Window:
    if not isinstance(value, dict):
        raise Unfit(f"has windows such as {{days: mon-fri, from: 08:00, to: 18:00}}, not {in_words(value)}")
    if unknown := [key for key in value if key not in ("days", "from", "to", "keep")]:
        raise Unfit(f"has no key {shorten(unknown[0])!r} in a window; it has days, from, to and keep")
    keep = value.get("keep", "ready")
    if keep not in KEEPS:
        raise Unfit(f"keeps ready or pin, not {in_words(keep)}")
    begin, end = _minute(value.get("from", "00:00")), _minute(value.get("to", "24:00"))
    if begin == end:
        raise Unfit("has a window that ends where it begins", "leave out from and to for the whole day")
    return Window(_days(value.get("days", "mon-sun")), begin, end, "pin" if keep == "pin" else "ready")


def _minute(value: Any) -> int:
    if type(value) is int and 60 <= value <= _DAY_MIN:
        return value  # YAML 1.1 reads 18:00 as a number to the base of 60, which is the minute of the day
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    minute = int(found[1]) * 60 + int(found[2]) if found else _DAY_MIN + 1
    if minute > _DAY_MIN:
        raise Unfit(f"needs times of day such as 08:00, not {in_words(value)}")
    return minute


def _days(value: Any) -> tuple[int, ...]:
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(each, str) for each in texts):
        raise Unfit(f"needs days such as mon-fri or sat,sun, not {in_words(value)}")
    found: set[int] = set()
    for each in texts:
        first, dash, last = each.strip().lower().partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise Unfit(f"knows no days {shorten(each)!r}; write mon-fri or sat,sun")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return tuple(sorted(found))


def as_keys(window: Window) -> dict[str, str]:
    """`window` as it would stand in the file."""
    times = {"from": _clock(window.begin_min), "to": _clock(window.end_min)}
    return {"days": ",".join(_runs(window.days)), **times, "keep": window.keep}


def _runs(days: tuple[int, ...]) -> Iterator[str]:
    at = 0
    while at < len(days):
        end = at
        while end + 1 < len(days) and days[end + 1] == days[end] + 1:
            end += 1
        yield DAYS[days[at]] if at == end else f"{DAYS[days[at]]}-{DAYS[days[end]]}"
        at = end + 1


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
