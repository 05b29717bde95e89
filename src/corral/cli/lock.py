"""`corral lock`: which digest each image of an engine stands for, resolved and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.images.lock import Line

_WORDS = {
    "locked": "locked",
    "new": "locked now",
    "changed": "locked to another digest now",
    "moved": "moved: it is another one now",
    "unlocked": "not locked",
    "unknown": "not resolved",
}


@click.command("lock")
@click.option("--all", "everything", is_flag=True, help="The whole catalogue and the bases of builds, used or not.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when an image is not locked or has moved.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The configuration file to use.")
@click.option(
    "--runner",
    type=click.Choice(["podman", "docker"]),
    help="Who has what was built here. Default: podman if installed.",
)
@click.pass_obj
def command(app: App, everything: bool, check: bool, config: Path | None, runner: str | None) -> int:
    """Resolve the images of engines to digests, and write them to images.lock.json in the configuration directory.

    Images are those of the models that run in containers. A tag is asked of its registry; what was built here has its
    own digest. A server starts an image only as it was locked; `corral image pull` fetches that very one.

    \b
    Examples:
      corral lock
      corral lock --check
    """
    from corral.config.load import load
    from corral.errors import EngineMissing
    from corral.images import lock, program

    settings = load(config, paths=app.paths, insecure=True).settings
    wanted = lock.wanted(app.paths, settings, everything=everything)
    if not wanted:
        if app.json:
            app.print_json([])
        else:
            app.note("No model runs in a container; --all locks the whole catalogue.")
        return 0
    try:
        held = program.pick(runner).held(each for references in wanted for each in references)
    except EngineMissing:
        held = {}  # then nothing was built here
    if everything:
        wanted = lock.there(wanted, held)
    resolved = lock.resolve(wanted, held, lock.registry(settings, app.paths, app.warn))
    lines = lock.beside(resolved, lock.read(app.paths), check=check)
    if not check:
        lock.write(app.paths, resolved)
    if app.json:
        app.print_json(lines)
    else:
        _show(app, lines)
    return 0 if all(line.good for line in lines) else 1


def _show(app: App, lines: list[Line]) -> None:
    for line in lines:
        digest = f"  {line.digest[:19]}…" if line.digest else ""
        why = f": {line.problem}" if line.problem else ""
        app.say(f"{line.reference}  {_WORDS[line.state]}{digest}{why}")
        if line.hint:
            app.say(f"  {line.hint}")  # beside what it is about: apart from it, it has no name
