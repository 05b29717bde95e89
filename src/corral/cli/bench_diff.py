"""`corral bench diff`: what changed between two saved benchmarks."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.bench_report import plain_difference, shelf, show_difference


@click.command("diff")
@click.argument("before")
@click.argument("after")
@click.option("--all", "everything", is_flag=True, help="What did not change, too.")
@click.pass_obj
def command(app: App, before: str, after: str, everything: bool) -> None:
    """Show what changed from one saved benchmark to another, beyond what runs of one differ by.

    BEFORE and AFTER are ids as `corral bench list` shows them, beginnings of one, files, or `latest`. A figure has
    changed when the ranges of its runs lie apart by more than half of the wider one, and its medians by a hundredth.

    \b
    Example:
      corral bench diff coder-20260711-090210 latest
    """
    from corral.measure.difference import difference

    kept = shelf(app)
    one, other = kept.find(before), kept.find(after)
    found = difference(one, other)
    if app.json:
        app.print_json({"before": one.id, "after": other.id, **plain_difference(found)})
        return
    app.say(f"From {one.id} to {other.id}:")
    show_difference(app, found, everything=everything)
