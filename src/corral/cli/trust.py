"""`corral trust`: which directories' models.yaml and .env may be used from within them."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.app import App


@click.command("trust")
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--remove", is_flag=True, help="Trust the directory no longer.")
@click.option("--list", "show", is_flag=True, help="Show the trusted directories.")
@click.pass_obj
def command(app: App, directory: Path | None, remove: bool, show: bool) -> None:
    """Allow the models.yaml and .env of DIR (the current directory) to be used by commands called in it.

    Such a file names programs to run, so read it first.

    \b
    Examples:
      corral trust
      corral trust ~/projects/assistant --remove
    """
    from corral.config import trust

    if show:
        if remove or directory is not None:
            raise click.UsageError("--list goes alone")
        found = trust.trusted_directories(app.paths)
        if app.json:
            app.print_json([{"directory": str(each), "fit": trust.is_trusted(app.paths, each)} for each in found])
            return
        for each in found:
            app.say(
                str(each) if trust.is_trusted(app.paths, each) else f"{each}  (gone, or others may change it: unused)"
            )
        if not found:
            app.note("No directory is trusted.")
        return
    wanted = Path.cwd() if directory is None else directory
    if remove:
        changed = trust.distrust(app.paths, wanted)
        text = f"{wanted} is trusted no longer." if changed else f"{wanted} was not trusted."
    else:
        changed = trust.trust(app.paths, wanted)
        text = f"{wanted.resolve()} is trusted." if changed else f"{wanted.resolve()} was trusted already."
    if app.json:
        app.print_json({"directory": str(wanted.resolve()), "trusted": not remove, "changed": changed})
    else:
        app.say(text)
