"""What the commands under `corral bench` share: options about results, and how a report is saved, shown and drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corral.cli.app import App
from corral.cli.table import Cell, Column

if TYPE_CHECKING:
    from corral.errors import CallerError
    from corral.measure.difference import Difference
    from corral.measure.report import Report
    from corral.measure.shelf import Shelf

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = "bench"
_IN_TERMINALS = ("output_tokens_per_s", "ttft_p50_ms", "prompt_per_s", "generation_per_s")
"""The charts that a terminal shows; pages and pictures have all."""

_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("output_tokens_per_s", "TOKENS/S", 0), ("requests_per_s", "REQ/S", 3), ("ttft_p50_ms", "TTFT P50", 0),
    ("ttft_p95_ms", "P95", 1), ("ttft_p99_ms", "P99", 4), ("tpot_p50_ms", "TPOT P50", 0), ("tpot_p95_ms", "P95", 2),
    ("itl_p50_ms", "ITL P50", 2), ("itl_p99_ms", "P99", 2), ("joules_per_token", "J/TOKEN", 3), ("failed", "FAILED", 0),
)  # fmt: skip


def drawing_options(command: F) -> F:
    """Where results go beside the terminal."""
    for option in reversed(
        (
            click.option("--html", metavar="FILE", help="Write a page with charts, in one file."),
            click.option("--png", metavar="FILE", help="Draw the charts; needs corral[bench]."),
            click.option("--csv", metavar="FILE", help="Write each value of each run as a line."),
            click.option("--charts/--no-charts", default=None, help="Charts in the terminal, or none."),
        )
    ):
        command = option(command)
    return command


def saving_options(command: F) -> F:
    command = click.option("--save/--no-save", default=True, help="Keep the result in the state directory.")(command)
    return click.option(
        "--against", metavar="RUN", help="The saved benchmark to compare with, not the last one alike."
    )(command)


class Numbers(click.ParamType[tuple[float, ...]]):
    """`1,4,16`: numbers, each once, ascending."""

    name = "N,N…"

    def __init__(self, least: float = 1, most: float = 4096, *, whole: bool = True) -> None:
        self._least, self._most, self._whole = least, most, whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = [int(each) if self._whole else float(each) for each in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list such as 1,4,16", param, ctx)
        if not all(self._least <= each <= self._most for each in found):
            self.fail(f"each of {value!r} must be from {self._least:g} to {self._most:g}", param, ctx)
        return tuple(sorted(set(found)))


def shelf(app: App) -> Shelf:
    from corral.measure.shelf import Shelf

    return Shelf(app.paths.state_dir / FOLDER)


def check_drawing(png: str | None) -> None:
    """Before anything is measured: what could not be drawn afterwards is refused."""
    if png is not None:
        from corral.measure import png as picture

        picture.ready()


def finish(
    app: App, report: Report, *, save: bool = True, against: str | None = None, charts: bool | None = None,
    html: str | None = None, png: str | None = None, csv: str | None = None,
) -> Report:  # fmt: skip
    """Saves, writes, prints and compares a report that was just made."""
    from corral.measure.difference import difference

    kept = shelf(app)
    path = None
    if save:
        report, path = kept.save(report)
    failed = write(app, report, html=html, png=png, csv=csv)
    earlier = kept.find(against) if against is not None else kept.before(report) if save else None
    found = difference(earlier, report) if earlier is not None else None
    if app.json:
        from corral.measure.report import plain

        compared = None if earlier is None or found is None else {"before": earlier.id, **plain_difference(found)}
        app.print_json({**plain(report), "file": None if path is None else str(path), "compared": compared})
        raise_first(failed)
        return report
    show(app, report, charts=charts)
    if earlier is not None and found is not None:
        app.say()
        app.say(f"Since {earlier.id}:")
        show_difference(app, found, everything=False)
    if path is not None:
        app.note(f"saved as {report.id}: {path}")
    raise_first(failed)
    return report


def write(app: App, report: Report, *, html: str | None, png: str | None, csv: str | None) -> list[CallerError]:
    """The files that were asked for. What cannot be written keeps none of the others from it: why, for afterwards."""
    from corral.errors import CallerError

    def page_() -> bytes:
        from corral.measure import page

        return page.html(report).encode()

    def picture() -> bytes:
        from corral.measure import png as drawn

        return drawn.png(report)

    def lines() -> bytes:
        from corral.measure.report import csv as rows

        return rows(report.figures).encode()

    failed = []
    for name, made in ((html, page_), (png, picture), (csv, lines)):
        if name is not None:
            try:
                _written(app, name, made())
            except CallerError as error:
                failed.append(error)
    return failed


def raise_first(failed: Sequence[CallerError]) -> None:
    """Raises the first, once everything else is done."""
    if failed:
        raise failed[0]


def _written(app: App, name: str, content: bytes) -> None:
    from corral.errors import CallerError

    try:
        Path(name).expanduser().write_bytes(content)
    except OSError as error:
        raise CallerError(
            f"{name} cannot be written: {error.strerror}", hint="name a file where you may write"
        ) from error
    if not app.json:
        app.note(f"wrote {name}")


def show(app: App, report: Report, *, charts: bool | None = None) -> None:
    """Tables of the figures, then charts on a terminal."""
    from corral.measure.figures import COLD, DEPTH, ENERGY, MEMORY, RATE, REQUESTS, SWAP

    for part in (DEPTH, REQUESTS, RATE):
        _by_level(app, report, part)
    rows = [
        [each.subject, each.kind.words, _shown(each.median, each.kind.unit), _range(each.values, each.kind.unit)]
        for each in report.figures
        if each.part in (COLD, SWAP, MEMORY, ENERGY)
    ]
    if rows:
        app.print_table(
            [Column("WHO"), Column("FIGURE", cut=True), Column("MEDIAN", right=True), Column("RUNS", rank=1)], rows
        )
    for note in report.notes:
        app.warn(note)
    if charts if charts is not None else sys.stdout.isatty():
        draw(app, report)


def draw(app: App, report: Report) -> None:
    """The most telling charts, in characters."""
    from corral.cli import terminal
    from corral.measure import plot
    from corral.measure.chart import charts as charts_of

    for chart in (each for each in charts_of(report) if each.name in _IN_TERMINALS):
        app.say()
        for line in plot.lines(chart, min(terminal.width() or 80, 100)):
            app.say(line)


def _by_level(app: App, report: Report, part: str) -> None:
    from corral.measure.figures import DEPTH

    found = {each.key: each for each in report.figures if each.part == part}
    if not found:
        return
    columns = _COLUMNS if part != DEPTH else (
        ("prompt_per_s", "READS TOKENS/S", 0), ("generation_per_s", "WRITES TOKENS/S", 0),
        ("engine_prompt_per_s", "ENGINE: READS", 2), ("engine_generation_per_s", "ENGINE: WRITES", 2),
    )  # fmt: skip
    names = {name for _, _, _, name in found}
    columns = tuple(each for each in columns if each[0] in names)
    rows = []
    for at in sorted({at for _, _, at, _ in found if at is not None}):
        for subject in report.subjects:
            cells = [found.get((subject, part, at, name)) for name, _, _ in columns]
            if any(cells):
                values = [_cell(each.median, each.name) if each is not None else "-" for each in cells]
                rows.append([subject, f"{at:g}", *values])
    app.print_table(
        [Column("WHO", cut=True), Column(part.upper(), right=True)]
        + [Column(title, rank, right=True) for _, title, rank in columns],
        rows,
    )


def _cell(value: float, name: str) -> Cell | str:
    if name == "failed":
        return Cell(f"{value:.0f}", ("red",)) if value else "-"
    from corral.measure.chart import short

    return f"{short(value)} ms" if name.endswith("_ms") else short(value)


def _shown(value: float, unit: str) -> str:
    from corral.measure.chart import short

    return short(value, unit) if unit in ("bytes", "") else f"{short(value)} {unit}"


def _range(values: Sequence[float], unit: str) -> str:
    return f"{_shown(min(values), unit)} to {_shown(max(values), unit)}" if len(values) > 1 else ""


def show_difference(app: App, found: Difference, *, everything: bool) -> None:
    """Rows that changed beyond noise and those of which nobody knows, or all; then what cannot be compared, and what
    else differs."""
    from corral.measure.figures import RATE, REQUESTS

    for words in found.unlike:
        app.note(f"not alike: {words}")
    styles = {"better": ("green",), "worse": ("red",), "differs": ("yellow",), "same": (), "unknown": ("dim",)}
    rows: list[list[Cell | str]] = []
    for row in found.rows:
        if not everything and row.judged not in ("better", "worse", "unknown"):
            continue
        each, unit = row.after, row.after.kind.unit
        level = "" if each.at is None else f"{each.at:g}"
        at = f"{level} {each.part}" if each.part in (REQUESTS, RATE) else f"{each.part} {level}"
        ratio = f"{(row.change.ratio - 1) * 100:+.0f} %" if row.change.before else "-"
        rows.append(
            [each.subject, at.strip(),
             each.kind.words, _shown(row.change.before, unit), _shown(row.change.after, unit), ratio,
             Cell(row.judged, styles[row.judged])]
        )  # fmt: skip
    if rows:
        columns = [Column("WHO", cut=True), Column("AT"), Column("FIGURE", cut=True), Column("BEFORE", right=True)]
        app.print_table([*columns, Column("AFTER", right=True), Column("BY", right=True), Column("JUDGED")], rows)
    counts = [f"{found.count(each)} {each}" for each in ("better", "worse", "differs", "same", "unknown")]
    app.say(f"{len(found.rows)} figures of both: {', '.join(count for count in counts if not count.startswith('0 '))}")
    if found.count("unknown"):
        app.note("one run says nothing of what runs differ by: the unknown are not judged. Measure both with --runs 3")
    for side, only in (("before", found.only_before), ("after", found.only_after)):
        if only:
            parts = sorted({f"{each.part} {each.at:g}" if each.at is not None else each.part for each in only})
            app.note(f"only {side}: {len(only)} figures ({', '.join(parts[:6])}{' …' if len(parts) > 6 else ''})")


def plain_difference(found: Difference) -> dict[str, Any]:
    import math

    return {
        "unlike": list(found.unlike),
        "rows": [
            {
                "subject": row.after.subject, "part": row.after.part, "at": row.after.at, "name": row.after.name,
                "before": list(row.before.values), "after": list(row.after.values),
                "before_median": row.change.before, "after_median": row.change.after,
                "ratio": None if math.isnan(row.change.ratio) else row.change.ratio, "judged": row.judged,
            }
            for row in found.rows
        ],
        "only_before": [list(each.key) for each in found.only_before],
        "only_after": [list(each.key) for each in found.only_after],
    }  # fmt: skip
