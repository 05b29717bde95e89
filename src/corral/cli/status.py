"""`corral status`: the server as a whole."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.errors import CorralError


@click.command("status")
@click.pass_obj
def command(app: App) -> None:
    """Show the server as a whole: where it listens, what it reads, how much it does.

    \b
    Example:
      corral status
    """
    from corral.cli import words
    from corral.units import show_bytes, show_duration

    client = app.client()
    status = client.status()
    if app.json:
        app.print_json(status)
        return
    try:
        devices = client.devices()
    except CorralError:  # a server of an earlier version has no such route
        devices = []
    limit = "" if status.max_active is None else f" of {status.max_active} at most"
    app.print_pairs(
        [
            ("version", status.version),
            ("process", f"{status.pid}, {show_bytes(status.memory_bytes)}"),
            ("up", f"{show_duration(status.uptime_s)}, since {words.moment(status.started_wall_s)}"),
            ("listens", ", ".join(status.listen) or "-"),
            ("config", status.config_file or "built in"),
            ("state", status.state_dir),
            ("models", f"{status.models}, loaded: {status.resident}{limit}"),
            ("requests", f"{status.in_flight} running, {status.waiting} waiting"),
            *((each.name, words.device(each)) for each in devices),
        ]
    )
    for warning in status.warnings:
        app.warn(warning)
