"""`corral doctor`: what is here, what is missing, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.units import show_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from corral.cli.finding import Finding
    from corral.config.settings import Settings

_STYLES = {"ok": ("green",), "warn": ("yellow",), "missing": ("dim",), "error": ("red", "bold")}


@click.command("doctor")
@click.option(
    "--report",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Write all a bug report needs into one zip file, without secrets; here, or to FILE.",
)
@click.pass_obj
def command(app: App, report: str | None) -> int:
    """Look over this machine: hardware, engines, tools, configuration, server, directories.

    Each finding is ok, warn, missing (something optional) or error, with the command that mends it. Only an error
    makes the exit code 1. Nothing is changed and nothing is sent anywhere.

    With --report, versions, hardware, these findings, the configuration, the last events, the ends of logs and the
    stories of models that failed are put into one file, to go with a bug report: keys, tokens, variables' values,
    credentials in addresses and home directories are taken out. Look through it before you send it.

    \b
    Examples:
      corral doctor
      corral doctor --report
    """
    from corral.cli import (
        check_containers,
        check_environments,
        check_gpus,
        check_machine,
        check_programs,
        check_sandbox,
        check_server,
    )
    from corral.cli.spinner import Spinner

    file = None if report is None else _place(report)
    with Spinner("looking around", quiet=app.json):
        config, settings = check_server.configuration(app)
        findings = [
            *check_machine.machine(),
            *check_gpus.drivers(),
            *check_programs.engines(),
            *check_environments.environments(app.paths),
            *check_programs.tools(),
            *check_sandbox.sandbox(settings),
            *check_containers.containers(),
            *config,
            *check_server.server(app, settings),
            *check_machine.places(app.paths),
        ]
    if file is not None:
        return _report(app, file, findings, settings)
    errors = sum(finding.level == "error" for finding in findings)
    if app.json:
        app.print_json({"ok": not errors, "findings": findings})
    else:
        _show(app, findings)
        warnings = sum(finding.level == "warn" for finding in findings)
        app.say()
        app.say(_verdict(errors, warnings))
    return 1 if errors else 0


def _place(name: str) -> Path:
    """The report's file, made and empty. Raises CallerError at once where it cannot be."""
    from pathlib import Path

    from corral.cli import report
    from corral.errors import CallerError

    file = Path(name or report.default_name())
    try:
        report.begin(file)
    except OSError as error:
        raise CallerError(
            f"the report cannot be written to {file}: {error.strerror}",
            hint="name another file: corral doctor --report FILE",
        ) from error
    return file


def _report(app: App, file: Path, findings: list[Finding], settings: Settings | None) -> int:
    from corral.cli import report
    from corral.cli.spinner import Spinner

    with Spinner("gathering", quiet=app.json):
        contents = report.write(app, file, findings, settings)
    size = file.stat().st_size
    if app.json:
        app.print_json({"file": str(file.absolute()), "bytes": size, "contents": dict(contents)})
        return 0
    for each, words in contents:
        app.say(f"  {each}  {words}")
    app.say(f"{file.absolute()} ({show_bytes(size)}): look through it before you send it.")
    return 0


def _verdict(errors: int, warnings: int) -> str:
    doubts = f"{warnings} warning{'s' if warnings != 1 else ''}"
    if errors:
        return f"{errors} error{'s' if errors != 1 else ''} and {doubts}: mend the errors first."
    return f"Nothing stands in the way ({doubts})." if warnings else "All is well."


def _show(app: App, findings: list[Finding]) -> None:
    from corral.cli.terminal import style, width

    color, columns = app.out_color, width()
    wide = max(len(finding.name) for finding in findings)
    area = ""
    for finding in findings:
        if finding.area != area:
            app.say(("" if not area else "\n") + finding.area)
            area = finding.area
        lead = f"  {finding.level:<7}  {finding.name:<{wide}}  "
        shown = "  " + style(f"{finding.level:<7}", *_STYLES[finding.level], on=color) + f"  {finding.name:<{wide}}  "
        for number, line in enumerate(_folded(finding.text, None if columns is None else columns - len(lead))):
            app.write((shown if number == 0 else " " * len(lead)) + line)
        if finding.fix:
            app.write(f"{' ' * len(lead)}→ {finding.fix}")  # whole: it is there to be copied


def _folded(text: str, columns: int | None) -> list[str]:
    from corral.cli.terminal import printable

    text = " ".join(printable(text).split())
    if columns is None:
        return [text]
    import textwrap

    return textwrap.wrap(text, max(20, columns)) or [""]
