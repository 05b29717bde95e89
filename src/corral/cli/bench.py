"""`corral bench`: what a model does with many requests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument
from corral.cli.table import Column

if TYPE_CHECKING:
    from corral.connection import Address
    from corral.measure.curve import Point
    from corral.measure.load import Work


@click.group("bench")
def command() -> None:
    """Measure a model as its clients see it.

    \b
    Example:
      corral bench concurrency coder
    """


@command.command("concurrency")
@model_argument()
@click.option("--most", type=click.IntRange(1, 4096), default=256, show_default=True, help="Requests at once, at last.")
@click.option("--runs", type=click.IntRange(1, 99), default=3, show_default=True, help="Of each level.")
@click.option(
    "--each", type=click.IntRange(1, 1000), default=2, show_default=True, help="Requests of each line in a run."
)
@click.option("--words", type=click.IntRange(1, 100_000), default=128, show_default=True, help="Of each random prompt.")
@click.option("--tokens", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Of each answer.")
@click.option("--direct/--no-direct", default=True, help="The engine itself too, where its socket can be reached.")
@click.pass_obj
def concurrency(app: App, model: str, most: int, runs: int, each: int, words: int, tokens: int, direct: bool) -> None:
    """Send 1, 2, 4 … requests at once and show where more bring no more tokens.

    Prompts are random words, answers have a fixed length, and each level is run several times: the table has the median
    run. With the engine on this machine, each level is also sent to it directly, past Corral.

    \b
    Examples:
      corral bench concurrency coder
      corral bench concurrency coder --most 64 --tokens 128 --no-direct
    """
    import asyncio

    from corral.cli.own_server import ensure
    from corral.measure.curve import levels, saturates_at
    from corral.measure.load import Work

    client = ensure(app)
    client.start(model)
    unit = next(unit for unit in client.units() if unit.model == model or unit.unit.startswith(f"{model}."))
    ways: dict[str, Address] = {"corral": client.address}
    if direct and (past := _engine(unit.endpoint)) is not None:
        ways["direct"] = past
    elif direct:
        app.note(f"the engine of {model} cannot be reached past Corral ({unit.endpoint})")
    app.note(f"{unit.unit}, {unit.engine_version}: {unit.slots} slots of {unit.context} tokens on {unit.device}")
    work = Work(model, words, tokens)
    found = asyncio.run(_measured(app, ways, work, levels(most), runs, each))
    at = {way: saturates_at(points) for way, points in found.items()}
    if app.json:
        app.print_json(
            {"model": model, "unit": unit.unit, "engine": unit.engine_version, "words": words, "tokens": tokens,
             "runs": runs, "points": {way: [_plain(each) for each in points] for way, points in found.items()},
             "saturates_at": at}
        )  # fmt: skip
        return
    columns = [Column("WAY"), *(Column(title, right=True) for title in (
        "AT ONCE", "TOKENS/S", "RUNS FROM", "TO", "FIRST TOKEN", "P95", "EACH TOKEN", "FAILED"))]  # fmt: skip
    app.print_table(columns, [_row(way, each) for way, points in found.items() for each in points])
    for way, level in at.items():
        said = f"saturates at {level} at once" if level is not None else f"still gains at {most} at once"
        app.say(f"{way}: {said}")
    for way, points in found.items():
        if problem := next((each.problem for each in points if each.problem), ""):
            app.warn(f"{way}: {sum(each.failed for each in points)} requests failed, the first with: {problem}")


async def _measured(
    app: App, ways: dict[str, Address], work: Work, levels: list[int], runs: int, each: int
) -> dict[str, list[Point]]:
    """Every level both ways in turn, so that what else the machine does falls on both."""
    from corral.measure.curve import point
    from corral.measure.load import run

    found: dict[str, list[Point]] = {way: [] for way in ways}
    for address in ways.values():
        await run(address, work, 1, 1, seed=-1)  # what only the first request costs
    for level in levels:
        made: dict[str, list[Any]] = {way: [] for way in ways}
        for number in range(runs):
            for way, address in ways.items():
                made[way].append(await run(address, work, level, level * each, seed=2 * number + (way == "direct")))
        for way in ways:
            found[way].append(point(made[way]))
        if not app.json:
            speeds = ", ".join(f"{way} {found[way][-1].tokens_per_s:.0f} tokens/s" for way in ways)
            app.note(f"{level} at once: {speeds}")
    return found


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
