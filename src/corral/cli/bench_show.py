"""`corral bench show`: a saved benchmark again."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.bench_report import check_drawing, drawing_options, raise_first, shelf, show, write


@click.command("show")
@click.argument("run")
@drawing_options
@click.pass_obj
def command(app: App, run: str, html: str | None, png: str | None, csv: str | None, charts: bool | None) -> None:
    """Show a saved benchmark again, or write its page, picture or table.

    RUN is an id as `corral bench list` shows it, a beginning of one, a file, or `latest`.

    \b
    Examples:
      corral bench show latest
      corral bench show coder-20260711-090210 --html coder.html --png coder.png
    """
    check_drawing(png)
    report = shelf(app).find(run)
    failed = write(app, report, html=html, png=png, csv=csv)
    if app.json:
        from corral.measure.report import plain

        app.print_json(plain(report))
        raise_first(failed)
        return
    app.say(f"{report.id}: {report.kind} of {report.title}")
    show(app, report, charts=charts)
    raise_first(failed)
