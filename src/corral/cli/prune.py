"""`corral prune`: room, made."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("prune")
@click.option("--older-than", metavar="TIME", help="Remove names neither fetched nor served for so long: 30d, 12h.")
@click.option("--unused", is_flag=True, help="Remove names that no models.yaml entry refers to.")
@click.option("--keep", multiple=True, metavar="PATTERN", help="Keep names that have this in them; may be repeated.")
@click.option("--conversations", is_flag=True, help="Remove all kept conversations, and nothing else.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would go.")
@click.pass_obj
def command(
    app: App, older_than: str | None, unused: bool, keep: tuple[str, ...], conversations: bool, dry_run: bool
) -> None:
    """Remove what nothing refers to; with --older-than or --unused, names too (with both, those that are both).

    What is being served, and what models.yaml names, stays.

    \b
    Examples:
      corral prune
      corral prune --older-than 30d --keep coder --dry-run
      corral prune --conversations
    """
    from corral.api_store import PruneAsk
    from corral.cli.own_server import ensure
    from corral.units import parse_duration, show_bytes

    if conversations and (older_than is not None or unused or keep):
        raise click.UsageError("--conversations goes with --dry-run only")
    try:
        age_s = None if older_than is None else parse_duration(older_than)
    except ValueError as error:
        raise click.UsageError(f"--older-than {older_than!r} is no time such as 30d or 12h") from error
    done = ensure(app).prune(PruneAsk(age_s, unused, list(keep), dry_run, conversations))
    if app.json:
        app.print_json(done)
        return
    what = "conversations" if conversations else "blobs"
    for name in done.names:
        app.say(f"{'would remove' if dry_run else 'removed'} {name}")
    for kept in done.kept:
        app.note(f"kept {kept}")
    app.say(f"{show_bytes(done.bytes)} {'would be freed' if dry_run else 'freed'} ({done.blobs} {what})")
