"""`corral events`: what happened, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.cli.arguments import follow_option, lines_option, model_option

if TYPE_CHECKING:
    from corral.api import EventInfo


_OLD_S = 43_200.0
"""Events are kept over restarts: from this age on they are shown with their day."""


@click.command("events")
@follow_option()
@lines_option(50)
@model_option()
@click.option("--since", type=click.IntRange(0), metavar="N", help="Only events numbered above N, without a limit.")
@click.pass_obj
def command(app: App, follow: bool, lines: int, model: str | None, since: int | None) -> None:
    """Show what happened: starts, stops, evictions, reloads, with the reason for each.

    \b
    Examples:
      corral events -n 20
      corral events -f --model demo
    """
    client = app.client()
    found = client.events(since or 0, model)
    last = found[-1].seq if found else since or 0
    if since is None:
        found = found[-lines:] if lines else []
    if app.json and not follow:
        app.print_json(found)
        return
    for event in found:
        _show(app, event)
    if follow:
        for event in client.follow_events(last, model):
            _show(app, event)
    elif not found:
        app.note("Nothing happened yet.")


def _show(app: App, event: EventInfo) -> None:
    from corral import clock
    from corral.cli import words

    if app.json:
        app.print_json_line(event)
        return
    about = event.model or "corral"
    when = words.moment if clock.wall() - event.wall_s > _OLD_S else words.clock
    app.say_now(f"{when(event.wall_s)}  {about}  {event.kind}  {event.text}")
