"""`corral bench list`: the saved benchmarks."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.bench_report import shelf
from corral.cli.table import Column


@click.command("list")
@click.pass_obj
def command(app: App) -> None:
    """List the saved benchmarks, oldest first.

    \b
    Example:
      corral bench list
    """
    import time

    found = shelf(app).all()
    if app.json:
        names = ("id", "kind", "title", "began_wall_s", "took_s", "version")
        app.print_json([{name: getattr(each, name) for name in names} for each in found])
        return
    if not found:
        app.note("no benchmark is saved yet: make one with: corral bench MODEL")
        return
    app.print_table(
        [Column("ID"), Column("KIND"), Column("WHEN", rank=1), Column("TOOK", rank=2), Column("CORRAL", rank=2)],
        [
            [each.id, each.kind, time.strftime("%Y-%m-%d %H:%M", time.localtime(each.began_wall_s)),
             f"{each.took_s:.0f} s", each.version]
            for each in found
        ],
    )  # fmt: skip
