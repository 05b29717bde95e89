"""`corral devices`: the memory there is."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("devices")
@click.pass_obj
def command(app: App) -> None:
    """Show the memory of each device: how much there is, how much is free, and who holds the rest.

    What Corral's engines hold of the processor's memory is what only their end gives back: pages of mapped model
    files are not in it, and count as free. SOURCE says who told the figures.

    \b
    Example:
      corral devices
    """
    devices = app.client().devices()
    if app.json:
        app.print_json(devices)
        return
    from corral.cli import words
    from corral.cli.table import Column

    right = [Column(name, right=True) for name in ("TOTAL", "FREE", "ENGINES", "OTHERS", "BUDGET", "LEFT FREE")]
    app.print_table(
        [Column("DEVICE"), *right, Column("SOURCE", rank=1), Column("WHAT", cut=True, rank=2)],
        [
            [
                each.name,
                words.size(each.total_bytes),
                words.size(each.free_bytes),
                words.size(each.used_bytes),
                words.size(each.others_bytes),
                words.size(each.budget_bytes),
                words.size(each.headroom_bytes),
                each.source,
                each.words,
            ]
            for each in devices
        ],
    )
    for each in devices:
        if each.problem is not None:
            app.warn(f"{each.name} cannot be used: {each.problem}")
        elif each.shared:
            app.note(f"{each.name} shares the machine's memory")
