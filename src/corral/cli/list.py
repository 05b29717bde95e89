"""`corral list`: the configured models, and those of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api import ModelInfo
    from corral.api_store import StoredModel
    from corral.cli.table import Cell


@click.command("list")
@click.option("--configured", is_flag=True, help="Only the models of models.yaml, and those being served.")
@click.option("--stored", is_flag=True, help="Only the models of the store, with what they are.")
@click.pass_obj
def command(app: App, configured: bool, stored: bool) -> None:
    """Show the models there are: the configured ones with the state of each, and those in the store.

    \b
    Examples:
      corral list
      corral list --stored
    """
    client = app.client()
    models = [] if stored else client.models()
    shelf = [] if configured else client.stored()
    if app.json:
        app.print_json(shelf if stored else models if configured else {"models": models, "stored": shelf})
        return
    if not models and not shelf:
        app.note("No models are there yet. Fetch one with: corral pull REF; configure one with: corral config init")
        return
    if stored:
        _shelf(app, shelf)
    else:
        _all(app, models, shelf)
    if any(m.default for m in models):
        app.note("* answers requests that name no model")
    for name, problem in [(m.name, m.problem) for m in models] + [(s.name, s.problem) for s in shelf]:
        if problem:
            app.warn(f"{name}: {problem}")


def _all(app: App, models: list[ModelInfo], shelf: list[StoredModel]) -> None:
    from corral.cli import words
    from corral.cli.table import Column

    columns = [
        Column("NAME", cut=True),
        Column("STATE"),
        Column("ENGINE", rank=3),
        Column("SIZE", rank=1, right=True),
        Column("CONTEXT", rank=2, right=True),
        Column("PORT", rank=4, right=True),
        Column("ALIASES", rank=5, cut=True),
    ]
    rows: list[list[Cell | str]] = [
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
    ]
    known = {m.name for m in models}
    rows += [
        [s.name, words.state("stored"), "-", words.size(s.size_bytes), words.number(s.context), "-", "-"]
        for s in shelf
        if s.name not in known
    ]
    app.print_table(columns, rows)


def _shelf(app: App, shelf: list[StoredModel]) -> None:
    from corral.cli import words
    from corral.cli.table import Column

    columns = [
        Column("NAME", cut=True),
        Column("DIGEST", rank=3),
        Column("SIZE", rank=1, right=True),
        Column("FORMAT", rank=5),
        Column("PARAMETERS", rank=4, right=True),
        Column("QUANTIZATION", rank=2),
        Column("SINCE", rank=6),
    ]
    app.print_table(
        columns,
        [
            [
                s.name,
                s.digest.removeprefix("sha256:")[:12] or s.place or "-",
                words.size(s.size_bytes),
                s.format,
                s.parameters,
                s.quantization,
                words.moment(s.at_wall_s) if s.at_wall_s else "-",
            ]
            for s in shelf
        ],
    )
