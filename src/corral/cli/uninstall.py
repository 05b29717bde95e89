"""`corral uninstall`: takes back what `corral install` installed."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.install import NAME, is_ours, plugin_file


@click.group("uninstall")
def command() -> None:
    """Take back what `corral install` installed.

    \b
    Example:
      corral uninstall docker-plugin
    """


@command.command("docker-plugin")
@click.pass_obj
def docker_plugin(app: App) -> None:
    """Remove Corral's `docker model`. One that it took the place of is put back; one that is not Corral's stays.

    \b
    Example:
      corral uninstall docker-plugin
    """
    from corral.errors import ConfigError

    file = plugin_file()
    there = file.exists() or file.is_symlink()
    if there and not is_ours(file):
        raise ConfigError(f"{file} is not Corral's", hint="remove it yourself, if it is to go")
    before = file.with_name(f"{NAME}.before")
    if there:
        file.unlink()
    restored = there and before.exists()
    if restored:
        before.rename(file)
    if app.json:
        app.print_json({"file": str(file), "removed": there, "restored": restored})
    elif not there:
        app.say(f"{file} is not there")
    else:
        app.say(f"{file} is {'the one of before' if restored else 'removed'}")
