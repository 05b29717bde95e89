"""`corral devices`: the memory there is, and how busy and hot each device is."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("devices")
@click.pass_obj
def command(app: App) -> None:
    """Show the memory of each device: how much there is, how much is free, and who holds the rest.

    What Corral's engines hold of the processor's memory is what only their end gives back: pages of mapped model
    files are not in it, and count as free. SOURCE says who told the figures.

    BUSY, HEAT and POWER (drawn, of what may be drawn) are there where something tells them: NVIDIA's library, the
    kernel's drivers for AMD's and Intel's GPUs, and for the processor its own sensors.

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
    work = [Column("BUSY", right=True), Column("HEAT", right=True, rank=3), Column("POWER", right=True, rank=3)]
    app.print_table(
        [Column("DEVICE"), *right, *work, Column("SOURCE", rank=1), Column("WHAT", cut=True, rank=2)],
        [
            [
                each.name,
                words.size(each.total_bytes),
                words.size(each.free_bytes),
                words.size(each.used_bytes),
                words.size(each.others_bytes),
                words.size(each.budget_bytes),
                words.size(each.headroom_bytes),
                words.share(each.utilisation),
                words.heat(each.temperature_c),
                words.power(each.power_w, each.power_limit_w),
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
