"""`corral story`: what happened to a model's engines, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.cli.arguments import lines_option, model_argument

if TYPE_CHECKING:
    from corral.api import Chapter, Story


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from corral.units import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command("story")
@model_argument()
@click.option(
    "--since", callback=_seconds, metavar="TIME", help="Only the last 30m, 1h, 2d … Default: all that is known."
)
@lines_option(50)
@click.pass_obj
def command(app: App, model: str, since: float | None, lines: int) -> None:
    """Tell in plain words what happened to MODEL's engines, and why: starts, stops, crashes, what was done about them.

    The story goes on over restarts of the server, and can be read without one. Its end comes last.

    \b
    Examples:
      corral story demo
      corral story demo --since 1h
    """
    story = _ask(app, model, since, lines)
    if app.json:
        app.print_json(story)
        return
    if not story.chapters:
        app.note(f"Nothing happened to {story.model}{' in that time' if since is not None else ' yet'}.")
        return
    if story.left_out:
        app.note(f"{story.left_out} earlier lines are left out: see --lines.")
    for number, chapter in enumerate(story.chapters):
        if number:
            app.say()
        _show(app, chapter)


def _show(app: App, chapter: Chapter) -> None:
    from corral import clock
    from corral.cli import words
    from corral.cli.terminal import printable, style
    from corral.units import show_duration

    ago = show_duration(max(0.0, clock.wall() - chapter.began_wall_s))
    title = f"Start {chapter.generation}" if chapter.generation is not None else "Before"
    heading = f"{title}, {words.moment(chapter.began_wall_s)}, {ago} ago"
    app.write(style(heading, "bold", on=app.out_color))
    for line in chapter.lines:
        after = f"+{show_duration(line.after_s)}" if line.after_s >= 0.0005 else "+0"
        app.write(f"  {after:<14} {printable(line.text)}")


def _ask(app: App, model: str, since: float | None, lines: int) -> Story:
    from corral.errors import Unreachable

    try:
        return app.client().story(model, last_s=since, lines=lines)
    except Unreachable:
        if app.host or os.environ.get("CORRAL_HOST"):
            raise
        story = _read(app, model, since, lines)
        if not story.chapters and since is None:
            raise
        return story


def _read(app: App, model: str, since: float | None, lines: int) -> Story:
    """The story as the journal has it, for when no server runs."""
    from corral import clock, journal
    from corral.story import tell

    name = _full_name(app, model)
    since_wall_s = 0.0 if since is None else clock.wall() - since
    return tell(journal.read(app.paths.state_dir, about=name), name, since_wall_s=since_wall_s, lines=lines)


def _full_name(app: App, name: str) -> str:
    """The model that `name` is an alias of, as far as the configuration can be read."""
    from corral.config.load import load
    from corral.errors import CorralError

    try:
        models = load(None, paths=app.paths).settings.models
    except CorralError:
        return name
    called, mark, number = name.rpartition("~")
    if mark and called:  # a replica
        return f"{_full_name(app, called)}~{number}"
    return next((model.name for model in models.values() if name in model.aliases), name)
