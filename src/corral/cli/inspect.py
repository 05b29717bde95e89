"""`corral inspect`: a manifest and its config as they are."""

from __future__ import annotations

import json

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument


@click.command("inspect")
@stored_argument()
@click.option("--remote", is_flag=True, help="Ask the registry, without fetching the model.")
@click.pass_obj
def command(app: App, model: str, remote: bool) -> None:
    """Show a model's manifest and config as JSON.

    \b
    Examples:
      corral inspect ai/smollm2
      corral inspect --remote ghcr.io/me/coder:v2
    """
    from corral.cli.own_server import ensure

    found = ensure(app).inspect(model, remote=remote)
    if app.json:
        app.print_json(found)
        return
    app.note(f"{found.ref}  {found.digest}  {found.media_type}")
    app.say(json.dumps({"manifest": found.manifest, "config": found.config}, indent=2, ensure_ascii=False))
    for note in found.notes:
        app.note(note)
