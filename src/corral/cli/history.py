"""`corral history`: what a name pointed to."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument


@click.command("history")
@stored_argument()
@click.pass_obj
def command(app: App, model: str) -> None:
    """Show every digest that a name pointed to, the newest first. A * marks the one it points to now.

    \b
    Example:
      corral history ai/smollm2
    """
    from corral.cli import words
    from corral.cli.own_server import ensure
    from corral.cli.table import Column

    past = ensure(app).history(model)
    if app.json:
        app.print_json(past)
        return
    columns = [Column("DIGEST"), Column("SINCE"), Column("BY"), Column("HERE")]
    app.print_table(
        columns,
        [
            [
                each.digest.removeprefix("sha256:")[:16] + (" *" if each.current else ""),
                words.moment(each.at_wall_s),
                each.why,
                "yes" if each.here else "no",
            ]
            for each in past
        ],
    )
