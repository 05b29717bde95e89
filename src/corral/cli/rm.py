"""`corral rm`: stored models, removed."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_arguments


@click.command("rm")
@stored_arguments()
@click.pass_obj
def command(app: App, models: tuple[str, ...]) -> None:
    """Remove names from the store, and the files that nothing else needs. A model that is being served stays.

    \b
    Example:
      corral rm ai/smollm2
    """
    from corral.cli.own_server import ensure
    from corral.units import show_bytes

    done = ensure(app).remove(list(models))
    if app.json:
        app.print_json(done)
        return
    for name in done.names:
        app.say(f"removed {name}")
    app.say(f"{show_bytes(done.bytes)} freed ({done.blobs} blobs)")
