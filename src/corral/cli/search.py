"""`corral search`: models on Docker Hub and Hugging Face."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("search")
@click.argument("text")
@click.option("--source", type=click.Choice(["docker", "hf"]), help="Ask one of them only.")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="How many of each at most.")
@click.pass_obj
def command(app: App, text: str, source: str | None, limit: int) -> None:
    """Look for models whose name has TEXT in it, on Docker Hub and on Hugging Face.

    \b
    Example:
      corral search qwen3
    """
    from corral.cli.own_server import ensure
    from corral.cli.table import Column

    found = ensure(app).search(text, source=source, limit=limit)
    if app.json:
        app.print_json(found)
        return
    if not found:
        app.note("Nothing was found.")
        return
    columns = [Column("NAME"), Column("DOWNLOADS", right=True), Column("DESCRIPTION", rank=1, cut=True)]
    app.print_table(
        columns,
        [[each.name, "-" if each.downloads is None else f"{each.downloads:,}", each.description] for each in found],
    )
