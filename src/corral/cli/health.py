"""`corral health`: well or not, as an exit code for probes."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("health")
@click.argument("model", required=False)
@click.pass_obj
def command(app: App, model: str | None) -> int:
    """Say whether the server, or MODEL, is well. Exit code 0 when it is, else 1: made for probes.

    A model is well when its process runs, its engine's own health is good, and it makes one token when asked to.
    Nothing is started: a model that does not run is not well. One that sleeps is.

    \b
    Examples:
      corral health
      corral health demo
    """
    from corral.api import HealthCheck, HealthInfo
    from corral.errors import CorralError, UnknownModel

    try:
        found = app.client().health(model)
    except CorralError as error:  # whatever keeps it from answering: to a probe it is not well
        name = "model" if error.code == UnknownModel.code else "server"
        found = HealthInfo(False, model, [HealthCheck(name, False, error.message, 0.0)])
    if app.json:
        app.print_json(found)
    else:
        for check in found.checks:
            took = f" ({check.took_ms:.0f} ms)" if check.took_ms else ""
            app.say(f"{'ok' if check.ok else 'BAD':<4} {check.name:<8} {check.text}{took}")
    return 0 if found.ok else 1
