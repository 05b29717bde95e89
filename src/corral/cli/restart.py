"""`corral restart`: a model's engine, stopped and started."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument


@click.command("restart")
@model_argument()
@click.option("--no-wait", is_flag=True, help="Return at once instead of when the model is ready.")
@click.pass_obj
def command(app: App, model: str, no_wait: bool) -> None:
    """Stop a model's engine and start it again, as after a change of its file.

    \b
    Example:
      corral restart demo
    """
    from corral.cli.spinner import Spinner

    client = app.client()
    with Spinner(f"restarting {model}", quiet=app.json):
        result = client.restart(model, wait=not no_wait)
    if app.json:
        app.print_json(result)
    else:
        app.say(result.text)
