"""`corral requests`: the last requests as they came, for who looks for a fault."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("requests")
@click.option("--on/--off", "on", default=None, help="Begin, or end, the recording; ending forgets what was recorded.")
@click.option("--bodies", is_flag=True, help="With --on: what was asked, too.")
@click.pass_obj
def command(app: App, on: bool | None, bodies: bool) -> None:
    """Show the last requests as they came, secrets masked. Nothing is recorded until you ask for it.

    At most 200 are kept, in the server's memory only; of bodies the first 16 KiB, and none without --bodies.

    \b
    Examples:
      corral requests --on
      corral requests
      corral requests --off
    """
    from corral.cli import words
    from corral.cli.table import Cell, Column

    if bodies and not on:
        raise click.UsageError("--bodies goes with --on", click.get_current_context())
    client = app.client()
    found = client.recording() if on is None else client.record(on=on, bodies=bodies)
    if app.json:
        app.print_json(found)
        return
    if on is not None:
        app.say("Requests are recorded" if found.on else "Requests are not recorded any more")
        return
    if not found.on:
        app.say("Requests are not recorded. Begin with: corral requests --on")
        return
    columns = [Column("TIME"), Column("STATUS", right=True), Column("MS", 2, right=True), Column("CALLER", 3, cut=True)]
    columns += [Column("MODEL", 1, cut=True), Column("REQUEST", cut=True)]
    rows: list[list[Cell | str]] = [
        [
            words.clock(each.at_wall_s), str(each.status or "…"),
            "" if each.took_ms is None else f"{each.took_ms:.1f}", each.caller, each.model,
            f"{each.method} {each.target}",
        ]
        for each in found.requests
    ]  # fmt: skip
    app.print_table(columns, rows)
