"""`corral export`: stored models as a tar file."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import stored_arguments


@click.command("export")
@stored_arguments()
@click.option("--output", "-o", required=True, metavar="FILE", help="The tar file to write.")
@click.pass_obj
def command(app: App, models: tuple[str, ...], output: str) -> None:
    """Write stored models to a tar file: an OCI image layout, which `corral load`, skopeo and oras read.

    \b
    Example:
      corral export ai/smollm2 -o smollm2.tar
    """
    from corral.api_store import ExportAsk
    from corral.cli.own_server import ensure
    from corral.cli.work import absolute, finish
    from corral.units import show_bytes

    done = finish(app, ensure(app).export(ExportAsk(list(models), absolute(output))))
    if app.json:
        app.print_json(done)
    else:
        app.say(f"{done.path}: {', '.join(done.names)}, {show_bytes(done.bytes)}")
