"""The arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from corral.cli.app import App

F = TypeVar("F", bound=Callable[..., Any])

COMPLETION_S = 0.5
"""How long a shell's user waits for model names at most."""


def model_names(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[str]:
    from corral.errors import CorralError

    try:
        # During completion click skips callbacks of options, so --host is read from what was parsed.
        host = next((str(c.params["host"]) for c in (ctx, ctx.find_root()) if c.params.get("host")), None)
        client = App(host=host).client()
        names = [name for model in client.models(timeout_s=COMPLETION_S) for name in (model.name, *model.aliases)]
        names += [each.name for each in client.stored(timeout_s=COMPLETION_S) if each.name not in names]
    except CorralError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def model_argument(*, required: bool = True) -> Callable[[F], F]:
    """`MODEL`: a name or alias, completed from the server's list."""
    return click.argument("model", required=required, shell_complete=model_names)


def _stored_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from corral.errors import CorralError

    try:
        host = next((str(c.params["host"]) for c in (ctx, ctx.find_root()) if c.params.get("host")), None)
        stored = App(host=host).client().stored(timeout_s=COMPLETION_S)
    except CorralError:
        return []
    return [each.name for each in stored if each.name.startswith(incomplete)]


def stored_argument() -> Callable[[F], F]:
    """`MODEL`: a name of the store, completed from it."""
    return click.argument("model", shell_complete=_stored_names)


def stored_arguments(*, required: bool = True) -> Callable[[F], F]:
    """`MODELS`: several of them."""
    return click.argument("models", nargs=-1, required=required, shell_complete=_stored_names)


def model_option(words: str = "Only what concerns this model.") -> Callable[[F], F]:
    return click.option("--model", metavar="MODEL", shell_complete=model_names, help=words)


def follow_option() -> Callable[[F], F]:
    return click.option("-f", "--follow", is_flag=True, help="Go on with what comes; end with Ctrl-C.")


def lines_option(default: int) -> Callable[[F], F]:
    return click.option(
        "-n",
        "--lines",
        metavar="N",
        type=click.IntRange(0, 100_000),
        default=default,
        show_default=True,
        help="How many at most.",
    )
