"""`corral config`: look at the configuration, check it, or write a first one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.config.load import Examined
    from corral.config.problem import Problem

_FILE = click.Path(path_type=Path)


@click.group("config")
def command() -> None:
    """Look at the configuration, check it, or write a first one.

    \b
    Examples:
      corral config init             write a first models.yaml
      corral config check            is it right?
      corral config show --origin    what is in effect, and from where
    """


@command.command("init")
@click.option("--example", is_flag=True, help="The fuller example: two large models, one at a time.")
@click.option("--force", is_flag=True, help="Replace the models.yaml there is; it is kept as models.yaml.bak.")
@click.pass_obj
def init(app: App, example: bool, force: bool) -> None:
    """Write a first models.yaml into your configuration directory.

    \b
    Example:
      corral config init --example
    """
    from corral.config import init as first

    written = first.init(app.paths, example=example, force=force)
    if app.json:
        app.print_json({"file": str(written.file), "backup": str(written.backup) if written.backup else None})
        return
    app.say(f"Wrote {written.file}")
    if written.backup is not None:
        app.say(f"The one before it is now {written.backup}")
    edit = "put your model files where it says, or correct it" if example else "add your models to it"
    app.say(f"\nNext, {edit}. Then:")
    app.say("  corral config check    see whether it is right")
    app.say("  corral serve           start the server")


@command.command("check")
@click.argument("file", required=False, type=_FILE)
@click.pass_obj
def check(app: App, file: Path | None) -> int:
    """Show everything that is wrong with FILE, or with the configuration in use.

    Flags in `args` that an engine would refuse count, where it can be asked without starting it.

    Ends with 1 when something is wrong; warnings alone are no reason.

    \b
    Example:
      corral config check ./models.yaml
    """
    examined = _with_args(app, _examine(app, file, insecure=False))
    if app.json:
        app.print_json(
            {
                "file": _shown(examined),
                "ok": not examined.errors,
                "problems": [problem.as_data() for problem in examined.problems],
            }
        )
    else:
        for problem in examined.problems:
            app.say(f"{problem.level}: {problem}")
        models = len(examined.loaded.settings.models)
        what = _shown(examined) or "the built-in configuration"
        errors, warnings = len(examined.errors), len(examined.problems) - len(examined.errors)
        found = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        app.say(
            f"{what}: {found}" if errors else f"{what}: right, {_count(models, 'model')}, {_count(warnings, 'warning')}"
        )
    return 1 if examined.errors else 0


@command.command("show")
@click.option("--origin", is_flag=True, help="Also where each value comes from.")
@click.option("--config", "file", type=_FILE, help="The models.yaml to look at, instead of the one in use.")
@click.pass_obj
def show(app: App, origin: bool, file: Path | None) -> None:
    """Show the configuration in effect, every default filled in, as YAML.

    Values of variables and flags whose names look secret are masked.

    \b
    Example:
      corral config show --origin
    """
    from corral.config.problem import config_error
    from corral.config.render import as_data, as_yaml

    examined = _examine(app, file, insecure=True)
    if examined.errors:
        raise config_error(examined.errors)
    _warn(app, examined.loaded.warnings)
    loaded = examined.loaded
    if app.json:
        data: dict[str, Any] = {"file": _shown(examined), "settings": as_data(loaded.settings, masked=True)}
        if origin:
            data["origins"] = [
                {"key": list(key), "kind": where.kind, "place": str(where.place) or None}
                for key, where in loaded.origins.items()
            ]
        app.print_json(data)
        return
    app.say(f"# {_shown(examined) or 'the built-in configuration: there is no models.yaml yet'}")
    where = (lambda key: str(loaded.origin(key))) if origin else None
    app.say(as_yaml(loaded.settings, masked=True, origin=where).rstrip("\n"))


@command.command("schema")
@click.pass_obj
def schema(app: App) -> None:
    """Print the JSON Schema of a models.yaml, for editors that complete and check.

    \b
    Example:
      corral config schema > models.schema.json
    """
    from corral.config.schema import json_schema

    app.print_json(json_schema())


@command.command("path")
@click.option("--all", "everything", is_flag=True, help="Every place that is looked at, in order.")
@click.option("--config", "file", type=_FILE, help="As with `corral serve --config`.")
@click.pass_obj
def path(app: App, everything: bool, file: Path | None) -> None:
    """Print which models.yaml is used; where none is, the one that would be.

    \b
    Example:
      $EDITOR "$(corral config path)"
    """
    examined = _examine(app, file, insecure=True)
    used = examined.loaded.file
    if app.json:
        app.print_json(
            {
                "file": _shown(examined),
                "candidates": [
                    {"step": each.step, "file": str(each.file) if each.file else None, "finding": each.finding}
                    for each in examined.candidates
                ],
            }
        )
    elif everything:
        for each in examined.candidates:
            app.say(f"{each.finding:<20}{each.step:<19}{each.file or ''}".rstrip())
    else:
        app.say(str(used or app.paths.user_config))
        if used is None:
            app.note("It is not there yet: the built-in configuration is used. Write it with: corral config init")


def _examine(app: App, file: Path | None, *, insecure: bool) -> Examined:
    from corral.config.load import examine

    def keyed(file: Path) -> bool:
        from corral.access.book import has_keys

        return has_keys(file)

    return examine(file, paths=app.paths, insecure=insecure, keyed=keyed)


def _with_args(app: App, examined: Examined) -> Examined:
    """The same, and what engines would refuse of `args`. A server does not ask for that: one model's flags are no
    reason to refuse all others."""
    from dataclasses import replace

    from corral.config.problem import Problem

    models = [model for model in examined.loaded.settings.models.values() if model.args or model.env]
    if not models:
        return examined
    from corral.engine_list import refused_args  # for the few configurations that have any

    found = []
    for name, error in refused_args(models, app.paths):
        key = ("models", name, "env" if "variable" in error.details else "args")
        place = examined.loaded.origin(key).place
        found.append(Problem(f"{name}: {error.message}", error.hint, place, key))
    return replace(examined, problems=(*examined.problems, *found))


def _shown(examined: Examined) -> str | None:
    return None if examined.loaded.file is None else str(examined.loaded.file)


def _warn(app: App, warnings: tuple[Problem, ...]) -> None:
    for each in warnings:
        app.warn(str(each))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
