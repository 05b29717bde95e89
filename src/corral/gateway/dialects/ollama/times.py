"""Ollama's durations and moments: Go's spelling, whole nanoseconds, RFC 3339."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from corral.errors import CallerError
from corral.lazy_dataclass import dataclass

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([+-]?)((?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NEVER_S: Final = 100 * 365 * 86400.0
"""How far away "never" is where a moment must be named."""


@dataclass(frozen=True, slots=True)
class Times:
    """The clock as a translation sees it."""

    wall: Callable[[], float]  # seconds since 1970
    elapsed_s: Callable[[], float]  # since the request began


def keep_alive_s(value: Any) -> float | None:
    """A request's `keep_alive` in seconds: infinity for a negative one or more than a hundred years, 0 to unload, None
    when it says nothing.

    A number is of seconds, a text is Go's: `5m`, `1h30m`, `-1s`; a bare number as a text is taken as well.
    Raises CallerError.
    """
    if value is None or value == "":
        return None
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(max(min(value, 1 << 60), -1))  # no float holds every whole number
    elif isinstance(value, str):
        seconds = _seconds(value.strip())
    if seconds is None or seconds != seconds:
        raise CallerError(
            f"keep_alive is no duration: {str(value)[:40]!r}", hint='send such as "5m", 300, 0 to unload or -1 for ever'
        )
    return float("inf") if seconds < 0 or seconds > _NEVER_S else seconds


def _seconds(text: str) -> float | None:
    try:
        return float(text) if len(text) < 20 and text.lower() not in ("nan", "inf", "infinity") else None
    except ValueError:
        pass
    match = _DURATION.fullmatch(text) if len(text) < 100 else None
    if match is None:
        return None
    total = sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(match[2]))
    return -total if match[1] == "-" else total


def nanoseconds(milliseconds: Any) -> int:
    """Whole nanoseconds of an engine's milliseconds; 0 for what is no number."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)) or not 0 < milliseconds < 1e12:
        return 0
    return int(milliseconds * 1e6)


def moment(wall_s: float) -> str:
    """RFC 3339 with an offset and six digits: Python's clients read no more."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="microseconds")


def until(wall_s: float, left_s: float | None) -> str:
    """The moment in `left_s` seconds; far away for None and infinity."""
    left_s = _NEVER_S if left_s is None or left_s > _NEVER_S else left_s
    return (datetime.fromtimestamp(wall_s, UTC) + timedelta(seconds=left_s)).isoformat(timespec="microseconds")
