"""`corral logout`: forget a registry's credentials."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("logout")
@click.argument("registry", default="docker.io")
@click.pass_obj
def command(app: App, registry: str) -> None:
    """Forget what `corral login` kept for a registry. What docker and podman keep stays.

    \b
    Example:
      corral logout ghcr.io
    """
    from corral.cli.own_server import ensure

    done = ensure(app).logout(registry)
    if app.json:
        app.print_json(done)
    else:
        app.say(done.text)
