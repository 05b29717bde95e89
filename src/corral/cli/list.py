"""`corral list`: the configured models."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("list")
@click.pass_obj
def command(app: App) -> None:
    """Show the configured models and the state of each.

    \b
    Example:
      corral list
    """
    from corral.cli import words
    from corral.cli.table import Column

    models = app.client().models()
    if app.json:
        app.print_json(models)
        return
    if not models:
        app.note("No models are configured; write a first models.yaml with: corral config init")
        return
    columns = [
        Column("NAME", cut=True),
        Column("STATE"),
        Column("ENGINE", rank=3),
        Column("SIZE", rank=1, right=True),
        Column("CONTEXT", rank=2, right=True),
        Column("PORT", rank=4, right=True),
        Column("ALIASES", rank=5, cut=True),
    ]
    app.print_table(
        columns,
        [
            [
                m.name + (" *" if m.default else ""),
                words.state(m.state),
                m.engine,
                words.size(m.size_bytes),
                words.number(m.context),
                words.number(m.port),
                ", ".join(m.aliases),
            ]
            for m in models
        ],
    )
    if any(m.default for m in models):
        app.note("* answers requests that name no model")
    for m in models:
        if m.problem:
            app.warn(f"{m.name}: {m.problem}")
