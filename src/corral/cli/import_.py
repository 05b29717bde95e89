"""`corral import`: models of other tools on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api_store import ImportedInfo


@click.command("import")
@click.argument("source")
@click.argument("models", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model that is there.")
@click.pass_obj
def command(app: App, source: str, models: tuple[str, ...], everything: bool) -> int:
    """Take over models of another tool without fetching or, where possible, copying them.

    SOURCE is ollama, docker, hf, lmstudio, llamacpp, or a directory. Without MODELS, what is there is listed. Each file
    is hashed once, then reflinked or hard-linked where the file system and the kernel allow, else referred to where it
    lies, else copied; which one it was is said, and what happens when the other tool removes its own.

    \b
    Examples:
      corral import ollama
      corral import ollama llama3.2
      corral import hf --all
    """
    from corral.api_store import ImportAsk
    from corral.cli.own_server import ensure
    from corral.cli.work import absolute, finish

    place = absolute(source) if "/" in source or source.startswith((".", "~")) else source
    listing = not models and not everything
    found = finish(app, ensure(app).import_models(ImportAsk(place, list(models), everything, listing)))
    if app.json:
        app.print_json(found)
    elif listing:
        _list(app, found, source)
    else:
        for each in found:
            _say(app, each)
    return 1 if not listing and any(each.problem for each in found) else 0


def _list(app: App, found: list[ImportedInfo], source: str) -> None:
    from corral.cli import words
    from corral.cli.table import Column

    if not found:
        app.note("There are no models.")
        return
    columns = [Column("MODEL", cut=True), Column("SIZE", right=True), Column("WOULD BE", rank=1, cut=True)]
    app.print_table(columns, [[each.note, words.size(each.size_bytes), each.problem or each.name] for each in found])
    app.note(f"import one with: corral import {source} MODEL, or all with --all")


def _say(app: App, each: ImportedInfo) -> None:
    if each.problem:
        app.warn(f"{each.name}: {each.problem}")
        return
    app.say(f"{each.name}")
    app.say(f"  {each.note}")
