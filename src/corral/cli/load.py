"""`corral load`: models from a tar file."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("load")
@click.argument("file")
@click.pass_obj
def command(app: App, file: str) -> None:
    """Read models from a tar file that `corral export`, skopeo or oras wrote. Every digest is checked.

    \b
    Example:
      corral load smollm2.tar
    """
    from corral.api_store import LoadAsk
    from corral.cli.own_server import ensure
    from corral.cli.work import absolute, finish

    done = finish(app, ensure(app).load(LoadAsk(absolute(file))))
    if app.json:
        app.print_json(done)
        return
    for name in done.names:
        app.say(f"loaded {name}")
