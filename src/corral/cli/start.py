"""`corral start`: a model's engine, now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument

if TYPE_CHECKING:
    from corral.api import ModelInfo
    from corral.client import Client


@click.command("start")
@model_argument(required=False)
@click.option("--no-wait", is_flag=True, help="Return at once instead of when the model is ready.")
@click.option("--dry-run", is_flag=True, help="Start nothing; show exactly what would run.")
@click.pass_obj
def command(app: App, model: str | None, no_wait: bool, dry_run: bool) -> None:
    """Start a model's engine now. Without a name, a terminal offers the list to choose from.

    Starts a server first when none is up; it ends when it has been idle for 5 minutes.

    \b
    Example:
      corral start demo
      corral start demo --dry-run
    """
    from corral.cli.own_server import ensure
    from corral.cli.spinner import Spinner

    if model is None and (app.json or not sys.stdin.isatty() or not sys.stdout.isatty()):
        raise click.UsageError(
            "which model? Without a terminal to choose on, its name is needed", click.get_current_context()
        )
    client = ensure(app)
    if model is None:
        model = _pick(app, client)
    if dry_run:
        from corral.cli.planned import show

        with Spinner(f"planning {model}", quiet=app.json):
            planned = client.plan(model)
        show(app, planned)
        return
    with Spinner(f"starting {model}", quiet=app.json):
        result = client.start(model, wait=not no_wait)
    if app.json:
        app.print_json(result)
    else:
        app.say(result.text)


def _pick(app: App, client: Client) -> str:
    """Asks until the answer is a number of the list, or a name or alias in it."""
    from corral.cli import words
    from corral.cli.table import Cell, Column

    models = client.models()
    if not models:
        raise click.UsageError("no models are configured; write a first models.yaml with: corral config init")
    columns = [Column("", right=True), Column("NAME", cut=True), Column("STATE"), Column("SIZE", rank=1, right=True)]
    rows: list[list[Cell | str]] = [
        [str(i), m.name, words.state(m.state), words.size(m.size_bytes)] for i, m in enumerate(models, 1)
    ]
    app.print_table(columns, rows)
    while True:
        try:
            answer = input(f"Start which? [1-{len(models)}] ").strip()
        except EOFError:
            raise click.Abort from None
        if (chosen := _chosen(models, answer)) is not None:
            return chosen
        app.say(f"A number from 1 to {len(models)} or a name, please; Ctrl-C leaves.")


def _chosen(models: list[ModelInfo], answer: str) -> str | None:
    if answer.isdecimal() and 1 <= int(answer) <= len(models):
        return models[int(answer) - 1].name
    return next((m.name for m in models if answer and answer in (m.name, *m.aliases)), None)
