"""`corral top`: the server at work, on the whole terminal or printed once."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.tui.view import ORDERS

if TYPE_CHECKING:
    from corral.api_live import Live
    from corral.client import Client


@click.command("top")
@click.option("--once", is_flag=True, help="Print the picture once and end; so does a pipe instead of a terminal.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the picture is taken.",
)
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="name",
    show_default=True,
    help="By what models are sorted at first.",
)
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII only; old terminals get it by themselves.")
@click.pass_obj
def command(app: App, once: bool, interval: float, sort: str, ascii_only: bool) -> None:
    """Watch the server work: devices, models, rates, queues, downloads and events, each second.

    Keys start, stop and restart the chosen model, follow its log and tell its story; ? shows all of them. It goes on
    when the server was started again. A key for a server elsewhere needs the scope admin.

    \b
    Examples:
      corral top
      corral top --once
      corral top --once --json
    """
    client = app.client()
    live = _live(client)
    if once or app.json or not sys.stdout.isatty() or not sys.stdin.isatty():
        from corral.cli.top_once import show

        show(app, live, sort)
        return
    if os.environ.get("TERM", "dumb") == "dumb":
        raise click.UsageError(
            "this terminal cannot place its cursor (TERM=dumb); `corral top --once` prints plainly",
            click.get_current_context(),
        )
    _watch(app, client, live, interval, sort, ascii_only)


def _live(client: Client) -> Live:
    from corral.errors import CallerError, NotFound

    try:
        return client.live()
    except NotFound as error:
        raise CallerError(
            "the server is older than this command: it does not tell what it does now",
            hint="start the server of this version: corral version",
        ) from error


def _watch(app: App, client: Client, live: Live, interval: float, sort: str, ascii_only: bool) -> None:
    from corral import clock
    from corral.cli.terminal import colored
    from corral.tui.app import Top
    from corral.tui.marks import wants_ascii
    from corral.tui.view import View

    address = "" if client.address.socket == app.paths.control_socket else str(client.address)
    view = View(address, order=sort)
    view.seen(live, clock.wall())
    top = Top(
        app.client,
        view,
        interval_s=interval,
        colors=colored(sys.stdout, app.color) and not os.environ.get("TERM", "").startswith("vt"),
        ascii_only=ascii_only or wants_ascii(os.environ),
    )
    try:
        top.run(mouse=False)  # so that the terminal's own selection goes on to work
    finally:
        top.end()
