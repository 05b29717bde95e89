"""What a run of the storm comes to: a row for each fault and phase, for the terminal and for docs/chaos.md."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.faults import PHASES, Fault, Hang
from chaos.storm import Record

PAGE = Path(__file__).resolve().parents[2] / "docs" / "chaos.md"
CRASH_SEEN_S = 0.05
BEYOND_S = 0.25
HEAD = (
    "fault", "phase", "faults", "noticed p50 / max ms", "beyond the load p50 / max ms", "ready again p50 / max ms",
    "under way", "ended with an error event", "refused", "over a bound",
)  # fmt: skip


def rows(records: Sequence[Record], hang_bound_s: float) -> list[tuple[str, ...]]:
    found = []
    kinds: dict[type[Fault], None] = dict.fromkeys(record.case.kind for record in records)
    for kind in sorted(kinds, key=lambda each: each.name):
        for phase in PHASES:
            mine = [record for record in records if record.case.kind is kind and record.case.phase == phase]
            if mine:
                found.append(_row(kind, phase, mine, hang_bound_s))
    return found


def _row(kind: type[Fault], phase: str, mine: Sequence[Record], hang_bound_s: float) -> tuple[str, ...]:
    bound = hang_bound_s if kind is Hang else CRASH_SEEN_S
    over = sum(over_bound(record, bound) for record in mine)
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


def over_bound(record: Record, bound_s: float) -> bool:
    late = record.detected_s is not None and record.detected_s > bound_s
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
