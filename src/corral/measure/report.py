"""A report: every figure of one benchmark with machine, versions and settings, and as what it is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from corral.errors import CallerError
from corral.lazy_dataclass import dataclass
from corral.measure.figures import Figure, figure

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark. `settings` say what was asked; reports with the same can be set against each other."""

    kind: str  # "model", "concurrency", "compare" or "devices"
    title: str
    began_wall_s: float
    took_s: float
    version: str
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    subjects: Mapping[str, Mapping[str, Any]]  # what each was: engine, version, device, address …
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    id: str = ""

    def of(self, subject: str) -> list[Figure]:
        return [each for each in self.figures if each.subject == subject]

    def get(self, subject: str, part: str, at: float | None, name: str) -> Figure | None:
        return next((each for each in self.figures if each.key == (subject, part, at, name)), None)


def plain(report: Report) -> dict[str, Any]:
    """As it is written."""
    found = {name: value for name, value in _shallow(report).items() if name != "figures"}
    figures = [
        {**asdict(each), "values": list(each.values), "median": each.median, "unit": each.kind.unit}
        for each in report.figures
        if each.values
    ]
    return {"corral_bench": FORMAT, **found, "figures": figures}


def _shallow(report: Report) -> dict[str, Any]:
    return {
        "id": report.id, "kind": report.kind, "title": report.title, "began_wall_s": report.began_wall_s,
        "took_s": report.took_s, "version": report.version, "machine": dict(report.machine),
        "settings": dict(report.settings), "subjects": {name: dict(facts) for name, facts in report.subjects.items()},
        "notes": list(report.notes),
    }  # fmt: skip


def parse(data: Any, where: str) -> Report:
    """What `plain` made. Raises CallerError when it is something else."""
    try:
        if data["corral_bench"] != FORMAT:
            raise CallerError(
                f"{where} is a benchmark of format {data['corral_bench']}, not {FORMAT}",
                hint="read it with the version of Corral that wrote it",
            )
        figures = tuple(figure(f["subject"], f["part"], f["at"], f["name"], f["values"]) for f in data["figures"])
        names = ("kind", "title", "began_wall_s", "took_s", "version", "machine", "settings", "subjects")
        return Report(
            **{name: data[name] for name in names}, figures=figures, notes=tuple(data["notes"]), id=str(data["id"])
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CallerError(f"{where} is no saved benchmark", hint="list those there are: corral bench list") from error


def csv(figures: Sequence[Figure]) -> str:
    """One line for each value: for spreadsheets and other programs."""
    lines = ["subject,part,at,figure,unit,run,value"]
    for each in figures:
        at = "" if each.at is None else f"{each.at:g}"
        head = ",".join(_cell(part) for part in (each.subject, each.part, at, each.name, each.kind.unit))
        lines += [f"{head},{number},{value!r}" for number, value in enumerate(each.values, 1)]
    return "\r\n".join(lines) + "\r\n"


def _cell(text: str) -> str:
    # A spreadsheet takes what begins so for a formula, and subjects are named by whoever runs a server.
    text = f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in '",\r\n') else text
