"""`corral push`: a stored model to a registry."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument


@click.command("push")
@stored_argument()
@click.argument("target", required=False)
@click.pass_obj
def command(app: App, model: str, target: str | None) -> None:
    """Send a stored model to an OCI registry: where its name says, or to TARGET. What is there is not sent again.

    \b
    Examples:
      corral push ghcr.io/me/coder:v2
      corral push coder ghcr.io/me/coder:v3
    """
    from corral.api_store import PushAsk
    from corral.cli.work import finish

    done = finish(app, app.client().push(PushAsk(model, target)))
    if app.json:
        app.print_json(done)
    else:
        app.say(f"{done.ref} is {done.digest}")
