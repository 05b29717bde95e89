"""`corral df`: what takes how much room."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("df")
@click.option("--bytes", "-b", "exact", is_flag=True, help="Exact numbers of bytes.")
@click.pass_obj
def command(app: App, exact: bool) -> None:
    """Show what every model takes, and where each byte of the store is. A hard link counts once.

    \b
    Example:
      corral df
    """
    from corral.cli.own_server import ensure
    from corral.cli.table import Column
    from corral.units import show_bytes

    found = ensure(app).usage()
    if app.json:
        app.print_json(found)
        return

    def size(count: int) -> str:
        return f"{count:,}" if exact else show_bytes(count)

    if found.models:
        columns = [Column("NAME", cut=True), Column("SIZE", right=True), Column("FREED BY RM", right=True)]
        app.print_table(columns, [[each.name, size(each.bytes), size(each.own_bytes)] for each in found.models])
        app.say()
    rows = [
        (
            "models",
            found.named_bytes,
            f"of which in several models: {size(found.shared_bytes)}" if found.shared_bytes else "",
        ),
        ("kept for rollback", found.kept_bytes, ""),
        ("unreferenced", found.unreferenced_bytes, "corral prune removes it, an hour after it came"),
        ("unfinished downloads", found.partial_bytes, ""),
        ("unpacked", found.placed_bytes, ""),
        ("records", found.other_bytes, ""),
    ]
    for title, count, note in rows:
        if count:
            app.say(f"{title:<22}{size(count):>16}" + (f"  {note}" if note else ""))
    app.say(f"{'total':<22}{size(found.total_bytes):>16}  in {found.path}")
    if found.linked_bytes:
        app.note(f"{size(found.linked_bytes)} of it are hard links of other tools' files: removing them frees nothing")
    if found.external_bytes:
        app.note(f"{size(found.external_bytes)} more lie elsewhere and are only referred to")
    if found.conversations_bytes:
        app.note(f"{size(found.conversations_bytes)} more are conversations: corral prune --conversations removes them")
    app.note(f"{size(found.free_bytes)} free on that file system")
