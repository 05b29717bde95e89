"""`corral rollback`: a name, back to an earlier digest."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument


@click.command("rollback")
@stored_argument()
@click.argument("digest", required=False)
@click.pass_obj
def command(app: App, model: str, digest: str | None) -> None:
    """Point a name to an earlier DIGEST (its beginning will do), or to the one before.

    Engines that run stay as they are.

    \b
    Examples:
      corral rollback ai/smollm2
      corral rollback ai/smollm2 3fa1c0
    """
    from corral.cli.own_server import ensure

    done = ensure(app).rollback(model, digest)
    if app.json:
        app.print_json(done)
    else:
        app.say(f"{done.name} is {done.digest} again")
        app.note("An engine that runs keeps what it has; take it up with: corral restart MODEL")
