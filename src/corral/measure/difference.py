"""What changed from one report to another, beyond noise. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from corral.lazy_dataclass import dataclass
from corral.measure.figures import Figure
from corral.measure.report import Report
from corral.measure.stats import Change, change

_MOMENTARY: Final = ("load_before",)
"""What is never the same."""

Judged = Literal["better", "worse", "differs", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure that both have."""

    before: Figure
    after: Figure
    change: Change

    @property
    def judged(self) -> Judged:
        verdict, better = self.change.verdict, self.after.kind.better
        if verdict in ("same", "unknown"):
            return "same" if verdict == "same" else "unknown"
        if not better:
            return "differs"
        return "better" if verdict == better else "worse"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two reports: what both measured, what only one did, and what about them is not the same."""

    rows: tuple[Row, ...]
    only_before: tuple[Figure, ...]
    only_after: tuple[Figure, ...]
    unlike: tuple[str, ...]  # settings, machines and versions that differ, in words

    def count(self, judged: Judged) -> int:
        return sum(row.judged == judged for row in self.rows)


def difference(before: Report, after: Report) -> Difference:
    """Figures are matched by subject, part, value and name. Where each report has one subject, it is the same one."""
    rename = _renamed(before, after)
    old = {_key(each, rename): each for each in before.figures if each.values}
    new = {each.key: each for each in after.figures if each.values}
    rows = tuple(Row(old[key], each, change(old[key].values, each.values)) for key, each in new.items() if key in old)
    return Difference(
        rows,
        tuple(each for key, each in old.items() if key not in new),
        tuple(each for key, each in new.items() if key not in old),
        tuple(_unlike(before, after, rename)),
    )


def _renamed(before: Report, after: Report) -> dict[str, str]:
    if len(before.subjects) == len(after.subjects) == 1:
        return dict(zip(before.subjects, after.subjects, strict=True))
    return {}


def _key(each: Figure, rename: dict[str, str]) -> tuple[str, str, float | None, str]:
    return rename.get(each.subject, each.subject), each.part, each.at, each.name


def _unlike(before: Report, after: Report, rename: dict[str, str]) -> list[str]:
    found = _told("Corral", {"version": before.version}, {"version": after.version})
    found += _told("the machine's", before.machine, after.machine)
    found += _told("the settings'", before.settings, after.settings)
    for name, facts in before.subjects.items():
        here = rename.get(name, name)
        if here in after.subjects:
            found += _told(f"{here}:", facts, after.subjects[here])
    return found


def _told(whose: str, one: Any, other: Any) -> list[str]:
    names: Sequence[str] = list(dict.fromkeys((*one, *other)))
    return [
        f"{whose} {name.replace('_', ' ')} {_plain(one.get(name))} → {_plain(other.get(name))}"
        for name in names
        if one.get(name) != other.get(name) and name not in _MOMENTARY
    ]


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)
