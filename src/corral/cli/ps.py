"""`corral ps`: the engines that run."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("ps")
@click.option("--all", "-a", "everything", is_flag=True, help="Also show what is stopped.")
@click.pass_obj
def command(app: App, everything: bool) -> None:
    """Show the engines that run: their memory, how busy they are and when idleness stops them.

    MEMORY is what only the engine's end gives back, on all devices; a ~ before it says that it is predicted, not
    measured. DEVICE says where it computes, with degraded: before it where it lacks a GPU that it should have; why
    is said below the table.

    \b
    Example:
      corral ps
    """
    units = [u for u in app.client().units() if everything or u.state != "stopped"]
    if app.json:
        app.print_json(units)
        return
    if not units:
        app.note("Nothing runs. A model starts when it is asked for, or with: corral start MODEL")
        return
    from corral.cli import words
    from corral.cli.table import Column
    from corral.units import show_duration

    columns = [
        Column("MODEL", cut=True),
        Column("ENGINE", rank=6),
        Column("RUNNER", rank=7),
        Column("STATE"),
        Column("MEMORY", rank=1, right=True),
        Column("DEVICE", rank=3),
        Column("CONTEXT", rank=5, right=True),
        Column("PORT", rank=8, right=True),
        Column("BUSY/QUEUED", rank=2, right=True),
        Column("UNTIL", rank=4),
    ]
    app.print_table(
        columns,
        [
            [
                u.model,
                u.engine,
                u.runner,
                words.state(u.state),
                words.memory(u),
                words.computes_on(u),
                words.number(u.context or None),  # a detector has none
                words.number(u.port),
                f"{u.busy}/{u.queued}",
                words.until(u),
            ]
            for u in units
        ],
    )
    for u in units:
        if u.reason and u.state in ("failed", "backoff"):  # what is stopped was meant to be
            app.warn(f"{u.model} is {u.state}: {u.reason}")
        if u.expected_wait_s is not None:
            app.note(f"{u.model}: {u.queued} waiting, about {show_duration(u.expected_wait_s)} for one more")
        if u.waits_for:
            app.warn(f"{u.model} cannot start yet: it {u.waits_for}")
        for warning in u.warnings:
            app.warn(f"{u.model}: {warning}")
