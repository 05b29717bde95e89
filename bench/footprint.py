"""Predicted memory against the engine's own report: 22 kinds of models, two sizes, ten ways to serve each."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from bench.frame import ROOT, Figure, main, median, sized

sys.path.insert(0, str(ROOT / "tests"))

from support.footprints import MIB, Case, Component, cases, measure, sample

WHAT = (
    "Predicted against reported memory, as a share of the report, by component (weights, cache with recurrent state, "
    "compute with output): every architecture of the tests as a tiny and a larger file, in every way it can be "
    "served, each loaded by the embedded engine and asked something. The engine's rounding to hundredths of a MiB is "
    "no error. `worst_under` is the largest share by which a prediction fell short."
)
PAGE = ROOT / "docs" / "memory.md"
_TABLE = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)

Row = tuple[Case, list[Component]]


def measure_all(quick: bool) -> list[Figure]:
    rows: list[Row] = []
    wanted = sample()[: sized(quick, 0, 999)] if quick else cases()
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(wanted, 1):
            rows.append((case, measure(case, Path(folder))))
            if sys.stderr.isatty():
                print(f"\r{number}/{len(wanted)} {case.name:50}", end="", file=sys.stderr)
    errors = [100 * part.error for _, parts in rows for part in parts if part.reported]
    phantoms = sum(1 for _, parts in rows for part in parts if not part.reported and part.predicted)
    if not quick:
        _write(rows)
    return [
        Figure("median_error", median([abs(error) for error in errors]), "≤ 3", f"percent, {len(errors)} components"),
        Figure("worst_error", max(map(abs, errors)), "≤ 10", "percent"),
        Figure("worst_under", max(0.0, *(-error for error in errors)), "≤ 5", "percent"),
        Figure("exact", 100 * sum(error == 0 for error in errors) / len(errors), "", "percent, within the rounding"),
        Figure("phantoms", phantoms, "≤ 0", "components predicted that the engine does not have"),
        Figure("cases", len(rows)),
    ]


def _write(rows: list[Row]) -> None:
    """The table in docs/memory.md: by architecture, the larger file as it comes, and the worst of all ways."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row[0].architecture, []).append(row)
    lines = ["| architecture | weights | cache | compute | worst over | worst under |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, found in by_name.items():
        plain = next(parts for case, parts in found if case.words == "default" and "-mid-" in case.name)
        errors = [100 * part.error for _, parts in found for part in parts if part.reported]
        cells = [f"{part.predicted / MIB:.2f} / {part.reported / MIB:.2f}" for part in plain]
        lines.append(f"| {name} | {' | '.join(cells)} | {max(0.0, *errors):.1f} % | {max(0.0, -min(errors)):.1f} % |")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda _: "\n" + "\n".join(lines) + "\n\n", page), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main("footprint", WHAT, measure_all))
