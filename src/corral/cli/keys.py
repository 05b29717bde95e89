"""`corral keys`: who may ask a server beyond this machine, for what, and how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api_access import KeyInfo, KeyMade

SCOPES = ("infer", "pull", "admin", "metrics")


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A time such as 90d; `never` and nothing are none."""
    from corral.units import parse_duration

    if value is None or value.strip().lower() == "never":
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.group("keys")
def command() -> None:
    """Make keys for those who may use the server, and take them back.

    A server on this machine alone asks for none. Any other address lets in nobody without one. Works with and without
    a running server; a running one goes by it at once.

    \b
    Examples:
      corral keys create --name laptop
      corral keys create --name ci --models 'ai/*' --tokens-per-day 200000 --expires 30d
      corral keys revoke laptop
    """


_COUNT = click.IntRange(1)


@command.command("create")
@click.option("--name", required=True, metavar="NAME", help="Who or what will use it.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPES",
    help="What it is good for: infer, pull, admin or metrics; several with commas. Default: infer.",
)  # fmt: skip
@click.option("--models", multiple=True, metavar="GLOB", help="Only these models, such as 'ai/*'. Default: all.")
@click.option("--expires", callback=duration, metavar="TIME", help="After this long it counts no more, such as 90d.")
@click.option("--requests-per-minute", type=_COUNT, metavar="N", help="Requests in any minute.")
@click.option("--tokens-per-minute", type=_COUNT, metavar="N", help="Tokens in any minute, prompts and answers.")
@click.option("--streams", type=_COUNT, metavar="N", help="Requests that are answered at once.")
@click.option("--tokens-per-day", type=_COUNT, metavar="N", help="Tokens on one day (UTC).")
@click.option("--tokens-per-month", type=_COUNT, metavar="N", help="Tokens in one month (UTC).")
@click.pass_obj
def create(
    app: App,
    name: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    expires: float | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    streams: int | None,
    tokens_per_day: int | None,
    tokens_per_month: int | None,
) -> None:
    """Make a key and print its secret, once: only a hash of it is kept.

    \b
    Example:
      corral keys create --name phone --tokens-per-month 1000000
    """
    from corral.api_access import KeyAsk
    from corral.cli.offline_keys import keys_of

    ask = KeyAsk(
        name, split(scopes) or ["infer"], list(models), expires, requests_per_minute, tokens_per_minute, streams,
        tokens_per_day, tokens_per_month,
    )  # fmt: skip
    _show(app, keys_of(app).create_key(ask))


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were revoked or have expired.")
@click.pass_obj
def list_(app: App, everything: bool) -> None:
    """Show the keys there are, without their secrets.

    \b
    Example:
      corral keys list --all
    """
    from corral.cli import words
    from corral.cli.offline_keys import keys_of
    from corral.cli.table import Cell, Column

    found = [each for each in keys_of(app).list_keys() if everything or each.state == "active"]
    if app.json:
        app.print_json(found)
        return
    if not found:
        app.say("There are no keys. Make one with: corral keys create --name NAME")
        return
    columns = [Column("ID"), Column("NAME", cut=True), Column("STATE", 2), Column("SCOPES", 1)]
    columns += [Column("MODELS", 3, cut=True), Column("LIMITS", 4), Column("EXPIRES", 5)]
    rows: list[list[Cell | str]] = [
        [
            each.id, each.name, each.state, ",".join(each.scopes), ",".join(each.models) or "all", limits(each),
            "never" if each.expires_wall_s is None else words.moment(each.expires_wall_s),
        ]
        for each in found
    ]  # fmt: skip
    app.print_table(columns, rows)


@command.command("revoke")
@click.argument("key")
@click.pass_obj
def revoke(app: App, key: str) -> None:
    """Have a key, by its ID or name, count no more: from this moment on, for every new request.

    \b
    Example:
      corral keys revoke laptop
    """
    from corral.cli.offline_keys import keys_of

    done = keys_of(app).revoke_key(key)
    if app.json:
        app.print_json(done)
    else:
        app.say(f"The key {done.id} ({done.name}) counts no more")


@command.command("rotate")
@click.argument("key")
@click.option(
    "--overlap", callback=duration, default="0", metavar="TIME", help="How long the secret before still counts."
)
@click.pass_obj
def rotate(app: App, key: str, overlap: float | None) -> None:
    """Give a key a new secret; its id, limits and usage stay.

    \b
    Example:
      corral keys rotate laptop --overlap 1h
    """
    from corral.cli.offline_keys import keys_of

    _show(app, keys_of(app).rotate_key(key, overlap or 0.0))


def _show(app: App, made: KeyMade) -> None:
    if app.json:
        app.print_json(made)
        return
    app.say(made.secret)
    app.note(f"This is the key {made.key.id} ({made.key.name}). It is shown this once; keep it where secrets are kept.")
    app.note("Clients send it as an API key: `Authorization: Bearer …`, or x-api-key.")


def split(given: tuple[str, ...]) -> list[str]:
    """`infer,pull` and repeated options as one list."""
    return [part.strip() for each in given for part in each.split(",") if part.strip()]


def limits(key: KeyInfo) -> str:
    """A key's limits in few words, and what is taken of them."""
    found = []
    for text, limit, taken in (
        ("req/min", key.requests_per_minute, None),
        ("tok/min", key.tokens_per_minute, None),
        ("at once", key.streams, None),
        ("tok/day", key.tokens_per_day, key.tokens_today),
        ("tok/month", key.tokens_per_month, key.tokens_this_month),
    ):
        if limit is not None:
            found.append(f"{limit} {text}" if not taken else f"{taken} of {limit} {text}")
    return ", ".join(found) or "none"
