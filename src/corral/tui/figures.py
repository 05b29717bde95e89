"""Numbers in few columns: rates, shares, times. Pure."""

from __future__ import annotations

from datetime import datetime


def rate(per_s: float | None) -> str:
    """At most five columns."""
    if per_s is None:
        return "-"
    if per_s < 100:
        return f"{per_s:.1f}"
    return f"{per_s:.0f}" if per_s < 100_000 else f"{per_s / 1000:.0f}k"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f}%"


def span(seconds: float | None) -> str:
    """A length of time in at most six columns: 45s, 4m10s, 2h05m, 3d4h."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def both(first_ms: float | None, second_ms: float | None) -> str:
    """Two times with one unit: 45/120ms, 0.9/12s."""
    if first_ms is None and second_ms is None:
        return "-"
    if max(first_ms or 0.0, second_ms or 0.0) < 1000:
        return f"{_plain(first_ms, 1)}/{_plain(second_ms, 1)}ms"
    return f"{_plain(first_ms, 1000)}/{_plain(second_ms, 1000)}s"


def _plain(ms: float | None, unit: int) -> str:
    if ms is None:
        return "-"
    value = ms / unit
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def clock(wall_s: float) -> str:
    """Local time of day."""
    return datetime.fromtimestamp(wall_s).strftime("%H:%M:%S")


def gib_pair(used: int, total: int) -> str:
    """Two amounts in the second one's unit: 4.1/24.0 GiB."""
    for name, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if total >= factor:
            return f"{used / factor:.1f}/{total / factor:.1f} {name}"
    return f"{used / 1024:.0f}/{total / 1024:.0f} KiB"


def moment(wall_s: float) -> str:
    """Local day and time."""
    return datetime.fromtimestamp(wall_s).strftime("%m-%d %H:%M")
