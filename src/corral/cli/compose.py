"""`corral compose`: a provider of Docker Compose. A service of a Compose file is a model then.

Source: docker/compose, `docs/extension.md`: `PROVIDER compose --project-name=P up|down|stop --option=value… SERVICE`,
lines of JSON on standard output, and `PROVIDER compose metadata`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.client import Client

_UP = (
    ("model", True, "string", "", "The model to serve, as `corral pull` takes it; several are possible."),
    ("context-size", False, "integer", "", "Tokens of context; -1 for as many as fit."),
    ("runtime-flags", False, "string", "", "Further flags of the engine that tune it."),
    ("keep-alive", False, "string", "", "How long it stays loaded without a request: 10m, 0, or -1 for ever."),
    ("mode", False, "string", "", "completion, embedding or reranking, where the model does not say."),
    ("preload", False, "boolean", "false", "Load it at once, not with the first request."),
    ("endpoint", False, "string", "", "Where the containers reach the server, when that cannot be found out."),
)
_DOWN = (("model", True, "string", "", "The model to unload."),)


class _Provider(click.Group):
    """Compose reads standard output only: a wrong call is told there too."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _lines():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _lines():
            return super().invoke(ctx)


@contextmanager
def _lines() -> Iterator[None]:
    from corral.cli.exits import USAGE

    try:
        yield
    except click.UsageError as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):  # somebody is looking around
            raise
        at = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
        say("error", f"{error.format_message().rstrip('.')}{at}")
        raise click.exceptions.Exit(USAGE) from error


@click.group("compose", cls=_Provider)
@click.option("--project-name", metavar="NAME", default="", help="The project, as Compose gives it.")
def command(project_name: str) -> None:
    """Serve models to a Compose file: its provider, called by `docker compose` itself. docs/connect.md has such a file.

    \b
    Example:
      corral compose --project-name app up --model ai/smollm2 llm
    """


def say(kind: str, message: str) -> None:
    """One line for Compose, at once."""
    sys.stdout.write(json.dumps({"type": kind, "message": message}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _told(work: Callable[..., None]) -> Callable[..., int]:
    """`work` with its error told in Compose's way."""

    @wraps(work)
    def act(*args: Any, **options: Any) -> int:
        from corral.errors import CorralError

        try:
            work(*args, **options)
        except CorralError as error:
            say("error", f"{error.message} ({error.hint})" if error.hint else error.message)
            return 1
        return 0

    return act


@command.command("up")
@click.argument("service")
@click.option("--model", "models", multiple=True, required=True, metavar="REF", help=_UP[0][4])
@click.option("--context-size", type=int, metavar="TOKENS", help=_UP[1][4])
@click.option("--runtime-flags", "flags", multiple=True, metavar="FLAGS", help=_UP[2][4])
@click.option("--keep-alive", metavar="TIME", help=_UP[3][4])
@click.option("--mode", metavar="MODE", help=_UP[4][4])
@click.option("--preload", type=bool, default=False, metavar="BOOL", help=_UP[5][4])
@click.option("--endpoint", metavar="ADDR", help=_UP[6][4])
@click.pass_obj
@_told
def up(
    app: App,
    service: str,
    models: tuple[str, ...],
    context_size: int | None,
    flags: tuple[str, ...],
    keep_alive: str | None,
    mode: str | None,
    preload: bool,
    endpoint: str | None,
) -> None:
    """Fetch the models, set them up, and tell Compose where they are. Doing it twice does no harm.

    \b
    Example:
      corral compose up --model ai/smollm2 --context-size 8192 llm
    """
    from corral.cli.own_server import ensure
    from corral.cli.reaching import base_url

    quiet = App(app.host, json=True, color=False)  # nothing but lines for Compose may go to standard output
    client = ensure(quiet)
    url = base_url(client.address, client.status().listen, endpoint)
    names = []
    for model in models:
        name = _here(client, model)
        asked: dict[str, Any] = {"context-size": context_size, "keep_alive": keep_alive, "mode": mode}
        asked |= {"raw-runtime-flags": " ".join(flags)} if flags else {}
        configure(client, name, {key: value for key, value in asked.items() if value is not None})
        if preload:
            say("info", f"loading {name}")
            client.start(name)
        names.append(name)
    say("setenv", f"URL={url}/v1/")
    say("setenv", f"MODEL={names[0]}")
    for number, name in enumerate(names[1:], 2):
        say("setenv", f"MODEL_{number}={name}")
    if key := os.environ.get("CORRAL_KEY"):
        say("setenv", f"API_KEY={key}")


@command.command("down")
@click.argument("service")
@click.option("--model", "models", multiple=True, metavar="REF", help=_DOWN[0][4])
@click.pass_obj
@_told
def down(app: App, service: str, models: tuple[str, ...]) -> None:
    """Unload the models. They stay in the store, and load again for whoever asks.

    \b
    Example:
      corral compose down --model ai/smollm2 llm
    """
    _unload(app, models)


@command.command("stop")
@click.argument("service")
@click.option("--model", "models", multiple=True, metavar="REF", help=_DOWN[0][4])
@click.pass_obj
@_told
def stop(app: App, service: str, models: tuple[str, ...]) -> None:
    """Unload the models, as `down` does.

    \b
    Example:
      corral compose stop --model ai/smollm2 llm
    """
    _unload(app, models)


@command.command("metadata")
def metadata() -> None:
    """Say which options there are, as Compose asks.

    \b
    Example:
      corral compose metadata
    """
    made = {
        "description": "Models that Corral serves on this machine",
        "up": {"parameters": _parameters(_UP)},
        "down": {"parameters": _parameters(_DOWN)},
        "stop": {"parameters": _parameters(_DOWN)},
    }
    sys.stdout.write(json.dumps(made, indent=2) + "\n")


def _parameters(options: tuple[tuple[str, bool, str, str, str], ...]) -> list[dict[str, Any]]:
    return [
        {"name": name, "description": text, "required": required, "type": kind, "default": default}
        for name, required, kind, default, text in options
    ]


def _unload(app: App, models: tuple[str, ...]) -> None:
    from corral.errors import Unreachable

    try:
        client = app.client()
    except Unreachable:
        say("info", "no server runs, so nothing is loaded")
        return
    for model in models:
        say("info", client.stop(model).text)


def _here(client: Client, model: str) -> str:
    """The name that `model` has on the server; it is fetched where it is not there."""
    from corral.api_downloads import PullAsk
    from corral.errors import CorralError

    if any(model in (each.name, *each.aliases) for each in client.models()):
        return model
    download = client.pull(PullAsk(model, update=False))
    if not download.over:
        say("info", f"pulling {download.ref}")
        told = 0
        for now in client.follow_downloads():
            if now.id != download.id:
                continue
            download = now
            if now.total and (tenth := 10 * now.done // now.total) > told:
                told = tenth
                say("info", f"pulling {now.ref}: {told * 10} %")
            if now.over:
                break
    if download.state != "done":
        reason = download.error
        why = f"{model} is not fetched: {reason.message}" if reason is not None else f"{model} is {download.state}"
        raise CorralError(why, hint=reason.hint if reason is not None else "see: corral downloads")
    return download.name


def configure(client: Client, model: str, asked: dict[str, Any]) -> None:
    """Has the server start `model` so from now on; what is not asked for stays."""
    from corral.connection import request

    if asked:
        with request(client.address, "POST", "/docker/engines/_configure", {"model": model, **asked}):
            pass
