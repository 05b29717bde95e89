"""Which models their schedules want at a time of the week. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral.config.settings import Window
from corral.scheduler.state import Keep, Spec

DAY_MIN = 24 * 60


def kept_now(specs: Mapping[str, Spec], weekday: int, minute: int) -> dict[str, Keep]:
    """What each model's schedule says for a local time; 0 = Monday, minutes after midnight."""
    found = {}
    for name, spec in specs.items():
        if (keep := wanted(spec.schedule, weekday, minute)) is not None:
            found[name] = keep
    return found


def wanted(windows: Iterable[Window], weekday: int, minute: int) -> Keep | None:
    """The strongest of the windows that hold then."""
    keeps = {Keep(window.keep) for window in windows if _holds(window, weekday, minute)}
    return Keep.PIN if Keep.PIN in keeps else Keep.READY if keeps else None


def _holds(window: Window, weekday: int, minute: int) -> bool:
    if window.begin_min < window.end_min:
        return weekday in window.days and window.begin_min <= minute < window.end_min
    today = weekday in window.days and minute >= window.begin_min
    return today or ((weekday - 1) % 7 in window.days and minute < window.end_min)
