"""`corral logs`: what a model's engine wrote."""

from __future__ import annotations

import click

from corral.cli.app import App
from corral.cli.arguments import follow_option, lines_option, model_argument
from corral.errors import NotFound


@click.command("logs")
@model_argument()
@follow_option()
@lines_option(100)
@click.option(
    "--request", metavar="ID", help="Only what is known of one request, by its X-Request-Id, and what the engine wrote."
)
@click.pass_obj
def command(app: App, model: str, follow: bool, lines: int, request: str | None) -> None:
    """Show what a model's engine wrote, the last lines first of all.

    Each answer has an X-Request-Id: the client's own if it gave one. With --request, the request with that id is looked
    up, how it went, and which of the engine's lines are its. The last 2000 requests are known; all that are in the logs
    where these have them (`log: {requests: true}`, see docs/logs.md).

    \b
    Example:
      corral logs demo -f
      corral logs demo --request req_5d1f0c2ab3e49d77
    """
    client = app.client()
    if request is not None:
        found = client.request_lines(model, request)
        if app.json:
            app.print_json({"model": model, "request": request, "lines": found})
        for line in found if not app.json else []:
            app.say(line)
        if not found:
            raise NotFound(
                f"nothing is known of a request {request} to {model}",
                hint="its id is in the answer's field X-Request-Id; see `corral logs --help` for which are known",
            )
        return
    if not follow:
        found = client.logs(model, lines)
        if app.json:
            app.print_json({"model": model, "lines": found})
            return
        for line in found:
            app.say(line)
        if not found and lines:
            app.note(f"{model} has written nothing yet.")
        return
    for line in client.follow_logs(model, lines):
        if app.json:
            app.print_json_line({"model": model, "line": line})
        else:
            app.say_now(line)
