"""The two clocks: monotonic seconds to decide by, wall seconds to show."""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic = time.monotonic
"""Seconds since an arbitrary start; never goes back. Deadlines and durations use it."""


def wall() -> float:
    """Seconds since 1970-01-01 UTC, for records that people read."""
    return time.time()


def iso(wall_s: float) -> str:
    """`wall_s` as RFC 3339 in UTC with milliseconds, such as `2026-11-21T09:00:00.123Z`."""
    stamp = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
    return stamp.removesuffix("+00:00") + "Z"
