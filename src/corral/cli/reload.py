"""`corral reload`: the configuration, read again."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("reload")
@click.pass_obj
def command(app: App) -> None:
    """Make the server read its configuration again. A bad one is refused whole, and the old one stays.

    \b
    Example:
      corral reload
    """
    result = app.client().reload()
    if app.json:
        app.print_json(result)
        return
    app.say(result.text)
    for what, names in (("added", result.added), ("removed", result.removed), ("changed", result.changed)):
        if names:
            app.say(f"  {what}: {', '.join(names)}")
    if result.needs_restart:
        app.warn(f"only a restart of the server takes up: {', '.join(result.needs_restart)}")
