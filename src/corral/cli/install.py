"""`corral install`: what other programs need to know Corral."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from corral.cli.app import App

MARK = "# Made by `corral install docker-plugin`."
NAME = "docker-model"


@click.group("install")
def command() -> None:
    """Make other programs know Corral.

    \b
    Example:
      corral install docker-plugin
    """


def plugin_file() -> Path:
    """Where Docker looks for the user's own plugins."""
    home = os.environ.get("DOCKER_CONFIG")
    return (Path(home) if home else Path.home() / ".docker") / "cli-plugins" / NAME


@command.command("docker-plugin")
@click.option("--force", is_flag=True, help="In place of a plugin that is there and is not Corral's.")
@click.pass_obj
def docker_plugin(app: App, force: bool) -> None:
    """Make `docker model …` speak to Corral, and Compose files with `models:` find their models there.

    It puts a small program into ~/.docker/cli-plugins (or DOCKER_CONFIG's). One of Docker's own there is kept, unless
    --force says otherwise; what it replaces is kept beside it as docker-model.before.

    \b
    Examples:
      corral install docker-plugin
      docker model list
    """
    from corral.config.atomic import replace_file
    from corral.errors import ConfigError

    file = plugin_file()
    foreign = (file.exists() or file.is_symlink()) and not is_ours(file)
    if foreign and not force:
        raise ConfigError(
            f"{file} is there, and is not Corral's", hint="replace it with --force; it is kept as docker-model.before"
        )
    if foreign:
        file.rename(file.with_name(f"{NAME}.before"))
    replace_file(file, script(), 0o755)
    if app.json:
        app.print_json({"file": str(file), "replaced": foreign})
    else:
        app.say(f"{file} is installed")
        app.note("Try it with: docker model list")


def script() -> str:
    # -P: a directory called corral where the user happens to be must not be run as us.
    return f'#!/bin/sh\n{MARK}\nexec {shlex.quote(sys.executable)} -P -m corral.cli.docker_plugin "$@"\n'


def is_ours(file: Path) -> bool:
    """Whether `corral install` made it."""
    try:
        with file.open("rb") as opened:
            return MARK.encode() in opened.read(4096)
    except OSError:
        return False
