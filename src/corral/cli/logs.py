"""`corral logs`: what a model's engine wrote."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import follow_option, lines_option, model_argument


@click.command("logs")
@model_argument()
@follow_option()
@lines_option(100)
@click.pass_obj
def command(app: App, model: str, follow: bool, lines: int) -> None:
    """Show what a model's engine wrote, the last lines first of all.

    \b
    Example:
      corral logs demo -f
    """
    client = app.client()
    if not follow:
        found = client.logs(model, lines)
        if app.json:
            app.print_json({"model": model, "lines": found})
            return
        for line in found:
            app.say(line)
        if not found:
            app.note(f"{model} has written nothing yet.")
        return
    for line in client.follow_logs(model, lines):
        if app.json:
            app.print_json_line({"model": model, "line": line})
        else:
            app.say_now(line)
