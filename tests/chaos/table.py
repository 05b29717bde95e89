"""What a run of the storm comes to: a row for each fault and phase, for the terminal and for docs/chaos.md."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.faults import PHASES, Fault, Hang, SocketGone
from chaos.storm import Record
from chaos.world import HANG_S, STOP_S

PAGE = Path(__file__).resolve().parents[2] / "docs" / "chaos.md"
CRASH_SEEN_S = 0.05
BEYOND_S = 0.25
HANG_SLACK = 1.25
"""An eighth of `hang` lies between two looks, and as much again may pass in one."""
HEAD = (
    "fault", "phase", "faults", "noticed p50 / max ms", "beyond the load p50 / max ms", "ready again p50 / max ms",
    "under way", "ended with an error event", "refused", "over a bound",
)  # fmt: skip


def rows(records: Sequence[Record]) -> list[tuple[str, ...]]:
    found = []
    kinds: dict[type[Fault], None] = dict.fromkeys(record.case.kind for record in records)
    for kind in sorted(kinds, key=lambda each: each.name):
        for phase in PHASES:
            mine = [record for record in records if record.case.kind is kind and record.case.phase == phase]
            if mine:
                found.append(_row(kind, phase, mine))
    return found


def _row(kind: type[Fault], phase: str, mine: Sequence[Record]) -> tuple[str, ...]:
    over = sum(over_bound(record) for record in mine)
    return (
        kind.name,
        phase,
        str(len(mine)),
        _two([record.detected_s for record in mine]),
        _two([record.beyond_s for record in mine]),
        _two([record.ready_s for record in mine]),
        str(sum(record.hit for record in mine)),
        str(sum(record.broken_off for record in mine)),
        str(sum(record.refused + record.unanswered for record in mine)),
        str(over),
    )


def bound_s(record: Record) -> float:
    """How soon this fault must be noticed."""
    if not issubclass(record.case.kind, (Hang, SocketGone)):
        return CRASH_SEEN_S
    # What is being stopped is killed after `stop`; everything else gives no sign of life within `hang`.
    return HANG_S * HANG_SLACK + (STOP_S if record.case.phase == "swap" else 0.0)


def over_bound(record: Record) -> bool:
    late = record.detected_s is not None and record.detected_s > bound_s(record)
    return late or (record.beyond_s is not None and record.beyond_s > BEYOND_S)


def _two(values: Sequence[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    return f"{known[(len(known) - 1) // 2] * 1000:.0f} / {known[-1] * 1000:.0f}"


def plain(table: Sequence[tuple[str, ...]]) -> str:
    """For a terminal."""
    lines = [HEAD, *table]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines)


def markdown(table: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "| --- | --- |" + " ---: |" * (len(HEAD) - 2)]
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in table)])


def record(table: Sequence[tuple[str, ...]], about: str) -> None:
    """Makes this run the one that docs/chaos.md shows."""
    text = PAGE.read_text(encoding="utf-8")
    section = f"<!-- recorded -->\n{about}; {time.strftime('%Y-%m-%d')}.\n\n{markdown(table)}\n<!-- /recorded -->"
    old = re.compile(r"<!-- recorded -->.*?<!-- /recorded -->", re.DOTALL)
    assert old.search(text), "docs/chaos.md has no place for the table"
    PAGE.write_text(old.sub(lambda _: section, text), encoding="utf-8")
