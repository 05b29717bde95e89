"""`corral serve`: the server in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from corral.cli.app import App


def _idle_time(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from corral.units import parse_duration

    if value is None or value.strip().lower() == "never":
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; or never", ctx, param) from error


@click.command("serve")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The models.yaml to use.")
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    help="Listen here: HOST:PORT or unix:/path, then ,dialect=NAME where it is not OpenAI's; may be repeated.",
)
@click.option(
    "--insecure", is_flag=True, help="Allow addresses beyond this machine, open to everybody who reaches them."
)
@click.option(
    "--idle-exit",
    callback=_idle_time,
    metavar="TIME",
    help="End after this long without work, such as 300 or 10m. Default: never.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much to tell on standard error.",
)
@click.option(
    "--log-format",
    type=click.Choice(["human", "json"]),
    help="Lines for people, or one JSON object each. Default: as configured, else human.",
)
@click.option("--log-requests", is_flag=True, help="A line for each request to a model, without its contents.")
@click.option(
    "--handover",
    is_flag=True,
    help="Take over from the server that runs, without unloading its models or refusing a request.",
)
@click.option("--quiet", "-q", is_flag=True, help="No greeting; warnings and errors still show.")
@click.pass_obj
def command(
    app: App,
    config: Path | None,
    listen: tuple[str, ...],
    insecure: bool,
    idle_exit: float | None,
    log_level: str,
    log_format: Literal["human", "json"] | None,
    log_requests: bool,
    handover: bool,
    quiet: bool,
) -> int:
    """Run the server in this terminal until Ctrl-C.

    Models start when they are asked for and stop when idle. Ctrl-C lets running answers end first; a second one
    does not wait.

    \b
    Example:
      corral serve --config models.yaml --listen 127.0.0.1:8642
      corral serve --handover    (a new version takes the place of the one that runs)
    """
    from corral.serve import serve
    from corral.serve_options import ServeOptions

    return serve(
        ServeOptions(
            config=config,
            listen=listen,
            insecure=insecure,
            handover=handover,
            idle_exit_s=idle_exit,
            log_level=log_level,
            log_format=log_format,
            log_requests=log_requests,
            quiet=quiet,
            json=app.json,
        )
    )
