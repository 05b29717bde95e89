"""`corral version`: of this command, and of the server if one runs."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress

import click

from corral import __version__
from corral.cli.app import App


@click.command("version")
@click.pass_obj
def command(app: App) -> None:
    """Show the version of this command and of the server.

    \b
    Example:
      corral version
    """
    from corral.errors import CorralError

    server = None
    with suppress(CorralError):  # no server: its version is simply not told
        server = app.client().status()
    python = ".".join(map(str, sys.version_info[:3]))
    if app.json:
        app.print_json({"version": __version__, "python": python, "server": server.version if server else None})
        return
    app.say(f"corral {__version__} (Python {python}, {platform.system()} {platform.machine()})")
    if server is not None:
        app.say(f"server {server.version} (process {server.pid})")
        if server.version != __version__:
            app.warn("the server is of another version: end it and start it again with: corral serve")
