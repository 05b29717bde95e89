"""`corral verify`: every byte, checked."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_arguments


@click.command("verify")
@stored_arguments(required=False)
@click.option("--repair", is_flag=True, help="Fetch again what is bad, from where the model came from.")
@click.pass_obj
def command(app: App, models: tuple[str, ...], repair: bool) -> int:
    """Read and hash every byte of the named models, or of the whole store. Exit code 1 when something stays bad.

    \b
    Examples:
      corral verify
      corral verify ai/smollm2 --repair
    """
    from corral.api_store import VerifyAsk
    from corral.cli.own_server import ensure
    from corral.cli.work import finish
    from corral.units import show_bytes

    done = finish(app, ensure(app).verify(VerifyAsk(list(models), repair)))
    if app.json:
        app.print_json(done)
        return 0 if done.clean else 1
    for each in done.damage:
        names = f" ({', '.join(each.names)})" if each.names else ""
        app.say(f"{'repaired' if each.repaired else 'BAD'}: {each.what}: {each.text}{names}")
    if done.clean:
        app.say(f"{show_bytes(done.bytes)} checked: {'all is well now' if done.damage else 'all is well'}")
    elif not repair:
        app.note("fetch again what is bad with: corral verify --repair")
    return 0 if done.clean else 1
