"""`corral tag`: another name for a stored model."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument


@click.command("tag")
@stored_argument()
@click.argument("name")
@click.pass_obj
def command(app: App, model: str, name: str) -> None:
    """Give a stored model another name. Nothing is copied; what the name meant before stays in its history.

    \b
    Example:
      corral tag ai/smollm2 ghcr.io/me/small:v1
    """
    done = app.client().tag(model, name)
    if app.json:
        app.print_json(done)
    else:
        app.say(f"{done.name} is {done.digest}")
