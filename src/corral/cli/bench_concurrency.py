"""`corral bench concurrency`: what a model does with many requests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument
from corral.cli.bench_report import check_drawing, draw, drawing_options, raise_first, shelf, write
from corral.cli.bench_subject import done, facts_of, machine, report, teller, unit_of
from corral.cli.table import Column

if TYPE_CHECKING:
    from corral.connection import Address
    from corral.measure.curve import Point


@click.command("concurrency")
@model_argument()
@click.option("--most", type=click.IntRange(1, 4096), default=256, show_default=True, help="Requests at once, at last.")
@click.option("--runs", type=click.IntRange(1, 99), default=3, show_default=True, help="Of each level.")
@click.option(
    "--each",
    type=click.IntRange(1, 1000),
    default=2,
    show_default=True,
    help="Requests of a run, for each at once.",
)
@click.option("--words", type=click.IntRange(1, 100_000), default=128, show_default=True, help="Of each random prompt.")
@click.option("--tokens", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Of each answer.")
@click.option("--direct/--no-direct", default=True, help="The engine itself too, where its socket can be reached.")
@click.option("--save/--no-save", default=True, help="Keep the result in the state directory.")
@drawing_options
@click.pass_obj
def command(
    app: App, model: str, most: int, runs: int, each: int, words: int, tokens: int, direct: bool, save: bool,
    html: str | None, png: str | None, csv: str | None, charts: bool | None,
) -> None:  # fmt: skip
    """Send 1, 2, 4 … requests at once and show where more bring no more tokens.

    Prompts are random words, answers have a fixed length, and each level is run several times: the table has the median
    run. With the engine on this machine, each level is also sent to it directly, past Corral.

    \b
    Examples:
      corral bench concurrency coder
      corral bench concurrency coder --most 64 --tokens 128 --no-direct
    """
    import time

    from corral.cli.own_server import ensure
    from corral.measure.curve import levels, point, saturates_at
    from corral.measure.figures import of_runs
    from corral.measure.series import Load, series
    from corral.measure.target import Target
    from corral.measure.work import Work

    check_drawing(png)
    client = ensure(app)
    unit = unit_of(client, model)
    targets = [Target("corral", client.address, model)]
    if direct and (past := _engine(unit.endpoint)) is not None:
        targets.append(Target("direct", past, model))
    elif direct:
        app.note(f"the engine of {model} cannot be reached past Corral ({unit.endpoint})")
    app.note(f"{unit.unit}, {unit.engine_version}: {unit.slots} slots of {unit.context} tokens on {unit.device}")
    began, machine_ = time.time(), machine(client)
    work = Work(model, words, tokens)
    made = done(
        series(
            targets, [work] * len(targets), [Load(level) for level in levels(most)],
            runs=runs, each=each, tell=teller(app),
        )
    )  # fmt: skip
    found = {way: [point(level) for level in done_] for way, done_ in made.items()}
    at = {way: saturates_at(points) for way, points in found.items()}
    limits = [f"{way}, {level[0].level} at once: the generator was the limit: {why}"
              for way, done_ in made.items() for level in done_ if (why := _limited(level))]  # fmt: skip
    figures = [each_ for way, done_ in made.items() for level in done_ for each_ in of_runs(way, level, tokens=tokens)]
    facts = facts_of(unit)
    kept = report(
        "concurrency", model, began, client=client, figures=figures, notes=limits, machine_=machine_,
        settings={"most": most, "runs": runs, "each": each, "words": words, "tokens": tokens},
        subjects={way: {**facts, "saturates_at": at[way]} for way in found},
    )  # fmt: skip
    if save:
        kept, _ = shelf(app).save(kept)
    failed_ = write(app, kept, html=html, png=png, csv=csv)
    if app.json:
        app.print_json(
            {"model": model, "unit": unit.unit, "engine": unit.engine_version, "words": words, "tokens": tokens,
             "runs": runs, "points": {way: [_plain(each) for each in points] for way, points in found.items()},
             "saturates_at": at, "notes": limits, "id": kept.id or None}
        )  # fmt: skip
        raise_first(failed_)
        return
    columns = [Column(title, right=title != "WHO") for title in heads()]
    app.print_table(columns, [_row(way, each) for way, points in found.items() for each in points])
    for way, level in at.items():
        said = f"saturates at {level} at once" if level is not None else f"still gains at {most} at once"
        app.say(f"{way}: {said}")
    for way, points in found.items():
        if problem := next((each.problem for each in points if each.problem), ""):
            app.warn(f"{way}: {sum(each.failed for each in points)} requests failed, the first with: {problem}")
    for words_ in limits:
        app.warn(words_)
    if charts:
        draw(app, kept)
    if kept.id:
        app.note(f"saved as {kept.id}")
    raise_first(failed_)


def heads() -> tuple[str, ...]:
    """What the table's columns are called: as those of `bench model` are."""
    return "WHO", "AT ONCE", "TOKENS/S", "RUNS FROM", "TO", "TTFT P50", "P95", "TPOT P50", "FAILED"


def _limited(runs: list[Any]) -> str:
    return next((run.limited for run in runs if run.limited), "")


def _engine(endpoint: str) -> Address | None:
    import os
    from pathlib import Path

    from corral.connection import Address

    socket = Path(endpoint.removeprefix("unix:"))
    return Address(socket=socket) if endpoint.startswith("unix:") and os.access(socket, os.W_OK) else None


def _row(way: str, point: Point) -> list[str]:
    return [
        way, str(point.level), f"{point.tokens_per_s:.0f}", f"{point.slowest_run:.0f}", f"{point.fastest_run:.0f}",
        f"{point.first_token_ms:.0f} ms", f"{point.first_token_p95_ms:.0f} ms", f"{point.each_token_ms:.1f} ms",
        str(point.failed or "-"),
    ]  # fmt: skip


def _plain(point: Point) -> dict[str, Any]:
    import math
    from dataclasses import asdict

    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(point).items()
    }
