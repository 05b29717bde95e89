"""`corral usage`: what was asked and taken, by key, model and day."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.keys import duration, split

_PARTS = ("key", "model", "day")


@click.command("usage")
@click.option("--key", metavar="KEY", help="Only this key's, by its ID or name; - for requests without a key.")
@click.option("--since", callback=duration, metavar="TIME", help="Only the last days, such as 7d. Default: all.")
@click.option("--by", multiple=True, metavar="WHAT", help="Tell apart: model, key, day; several with commas.")
@click.pass_obj
def command(app: App, key: str | None, since: float | None, by: tuple[str, ...]) -> None:
    """Show requests and tokens, by key and model; days are UTC's.

    \b
    Examples:
      corral usage
      corral usage --since 7d --by day
      corral usage --key laptop --by model,day
    """
    from corral.cli.offline_keys import keys_of
    from corral.cli.table import Cell, Column

    parts = tuple(split(by)) or ("key", "model")
    for each in parts:
        if each not in _PARTS:
            raise click.UsageError(f"--by is model, key or day, not {each!r}", click.get_current_context())
    rows = keys_of(app).key_usage(key, since, parts)
    if app.json:
        app.print_json(rows)
        return
    if not rows:
        app.say("Nothing was asked")
        return
    columns = [Column(each.upper(), cut=each != "day") for each in ("day", "key", "model") if each in parts]
    columns += [Column(each, right=True) for each in ("REQUESTS", "PROMPT", "COMPLETION", "TOKENS")]
    shown: list[list[Cell | str]] = []
    for row in rows:
        names = {"day": row.day, "key": row.name or row.key or "(none)", "model": row.model}
        counts = (row.requests, row.prompt_tokens, row.completion_tokens, row.prompt_tokens + row.completion_tokens)
        shown.append([*(names[each] for each in ("day", "key", "model") if each in parts), *map(str, counts)])
    app.print_table(columns, shown)
