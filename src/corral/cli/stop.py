"""`corral stop`: a model's engine, or all of them."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument


@click.command("stop")
@model_argument(required=False)
@click.option("--all", "everything", is_flag=True, help="Stop every engine that runs.")
@click.option("--no-wait", is_flag=True, help="Return at once instead of when it has ended.")
@click.pass_obj
def command(app: App, model: str | None, everything: bool, no_wait: bool) -> None:
    """Stop a model's engine. The server stays, and starts it again when it is asked for.

    Of a model with replicas, all are stopped; by the name that `corral ps` shows, one of them is.

    \b
    Examples:
      corral stop demo
      corral stop demo~2
      corral stop --all
    """
    from corral.cli.spinner import Spinner

    if (model is None) is not everything:
        raise click.UsageError("name one model, or --all", click.get_current_context())
    client = app.client()
    names = [model] if model is not None else [u.model for u in client.units() if u.state != "stopped"]
    results = []
    for name in names:
        with Spinner(f"stopping {name}", quiet=app.json):
            result = client.stop(name, wait=not no_wait)
        results.append(result)
        if not app.json:
            app.say(result.text)
    if app.json:
        app.print_json(results if everything else results[0])
    elif not results:
        app.say("Nothing runs.")
