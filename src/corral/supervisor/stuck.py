"""Whether a process that should be loading does nothing at all. Linux only; elsewhere the start timeout has to do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from corral import clock
from corral.supervisor.liveness import look_every_s
from corral.units import show_duration

_PROC = Path("/proc")
_WAITS_FOR_A_DISK = "D"


async def until_stuck(pid: int | None, hang_s: float) -> str:
    """Returns once the process has done nothing for `hang_s`, with that in words. Never, where nobody can tell.

    Nothing: neither it nor a descendant used any processor time, read anything or had a page brought in, and none of
    them waits for a disk.
    """
    every_s = look_every_s(hang_s)
    last: tuple[int, ...] | None = ()
    stood_s, looked_at = 0.0, clock.monotonic()
    while stood_s < hang_s:
        await asyncio.sleep(every_s)
        seen = None if pid is None else await asyncio.to_thread(_work, pid)
        now = clock.monotonic()
        # Time in which nobody looked, because Corral itself was stopped, does not count.
        stood_s = stood_s + min(now - looked_at, 2 * every_s) if seen is not None and seen == last else 0.0
        last, looked_at = seen, now
    return f"it did nothing at all for {show_duration(stood_s)} while it was to load"


def _work(pid: int) -> tuple[int, ...] | None:
    """Numbers that change whenever it does anything; None when it waits for a disk, or nothing can be seen."""
    children: dict[int, list[int]] = defaultdict(list)
    found: dict[int, list[str]] = {}
    for entry in _PROC.glob("[0-9]*"):
        if (fields := _fields(entry)) is not None:
            found[int(entry.name)] = fields
            children[int(fields[1])].append(int(entry.name))
    if pid not in found:
        return None
    numbers: list[int] = []
    todo = [pid]
    while todo:
        each = todo.pop()
        fields = found[each]
        if fields[0] == _WAITS_FOR_A_DISK:
            return None
        # Faults of both kinds, user and system time. Source: proc_pid_stat(5), fields 10, 12, 14 and 15.
        numbers += [each, *(int(fields[i]) for i in (7, 9, 11, 12)), _read(each)]
        todo += sorted(children[each])
    return tuple(numbers)


def _fields(entry: Path) -> list[str] | None:
    """Of its stat, what stands after the name, which may contain anything."""
    try:
        return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _read(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "io").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
