"""Reading and printing quantities: bytes and durations."""

from __future__ import annotations

import re

_BYTES = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3, "t": 1000**4, "tb": 1000**4,
    "ki": 1 << 10, "kib": 1 << 10, "mi": 1 << 20, "mib": 1 << 20,
    "gi": 1 << 30, "gib": 1 << 30, "ti": 1 << 40, "tib": 1 << 40,
}  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhd])")


def parse_bytes(text: str | int) -> int:
    """`"16GiB"`, `"500 MB"` or a plain count, as bytes.

    Raises ValueError for anything else, negative counts included.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is negative")
        return text
    match = _QUANTITY.fullmatch(str(text))
    if match is None or (unit := match[2].lower()) not in _BYTES:
        raise ValueError(f"{text!r} is not a size such as 16GiB or 500MB")
    return round(float(match[1]) * _BYTES[unit])


def parse_duration(text: str | float) -> float:
    """`"5m"`, `"1h30m"`, `"250ms"` or a plain number of seconds, as seconds.

    Raises ValueError for anything else, negative numbers included.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is negative")
        return float(text)
    bare = str(text).strip().lower()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", bare):
        return float(bare)
    parts = _DURATION_PART.findall(bare)
    if not parts or "".join(n + u for n, u in parts) != bare.replace(" ", ""):
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def show_bytes(count: int) -> str:
    """`count` for people: `"3.2 MiB"`; binary units, as memory is counted."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def show_duration(seconds: float) -> str:
    """`seconds` for people: `"850 ms"`, `"4.2 s"`, `"3 min 20 s"`, `"2 h 5 min"`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
