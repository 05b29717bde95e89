"""`corral downloads`: what is being fetched, and its reins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api_downloads import DownloadInfo

_ACTIONS = ("pause", "resume", "cancel")


@click.command("downloads")
@click.argument("action", required=False)
@click.argument("id", required=False)
@click.option("-f", "--follow", is_flag=True, help="Show the progress of one download until it is over.")
@click.pass_obj
def command(app: App, action: str | None, id: str | None, follow: bool) -> None:
    """List downloads, or pause, resume or cancel one.

    ACTION is pause, resume or cancel, with the ID of a download or its model's name; without one, an ID alone shows
    that download. Cancelling removes what is not whole; pausing keeps it.

    \b
    Examples:
      corral downloads
      corral downloads pause 3f2a
      corral downloads -f 3f2a
    """
    client = app.client()
    if action is not None and action not in _ACTIONS:
        if id is not None:
            raise click.UsageError(f"there is no action {action!r}: {', '.join(_ACTIONS)}", click.get_current_context())
        action, id = None, action
    if action is not None and id is None:
        raise click.UsageError(f"{action} which? `corral downloads` lists them", click.get_current_context())
    jobs = client.downloads()
    if id is None:
        _list(app, jobs)
        return
    job = _find(jobs, id)
    if action is not None:
        job = getattr(client, action)(job.id)
    if follow:
        from corral.cli.follow import attach

        job = attach(app, client, job)
    if app.json:
        app.print_json(job)
    elif action is not None or follow:
        app.say(f"{job.name} is {job.state}")
    else:
        _show(app, job)


def _find(jobs: list[DownloadInfo], text: str) -> DownloadInfo:
    from corral.errors import NotFound

    found = [job for job in jobs if job.id.startswith(text)] or [job for job in jobs if text in (job.name, job.ref)]
    found = found or [job for job in jobs if text in job.name]
    if not found:
        raise NotFound(f"there is no download {text}", hint="`corral downloads` lists them")
    if len({job.id for job in found}) > 1 and not any(not job.over for job in found[:1]):
        found = [job for job in found if not job.over] or found
    return found[0]


def _list(app: App, jobs: list[DownloadInfo]) -> None:
    from corral.cli import words
    from corral.cli.bars import progress
    from corral.cli.table import Column

    if app.json:
        app.print_json(jobs)
        return
    if not jobs:
        app.note("Nothing is or was being fetched. Fetch a model with: corral pull REF")
        return
    columns = [
        Column("ID"),
        Column("MODEL", cut=True),
        Column("STATE"),
        Column("SIZE", rank=2, right=True),
        Column("PROGRESS", rank=1),
        Column("SINCE", rank=3),
    ]
    app.print_table(
        columns,
        [
            [
                job.id,
                job.name,
                words.state(job.state),
                words.size(job.total),
                progress(job) if job.blobs and not job.over else "-",
                words.moment(job.started_wall_s) if job.started_wall_s else "-",
            ]
            for job in jobs
        ],
    )
    for job in jobs:
        if job.error is not None and job.state != "done":
            app.warn(f"{job.id}: {job.error.message}")


def _show(app: App, job: DownloadInfo) -> None:
    from corral.cli import terminal
    from corral.cli.bars import picture

    for line in picture(job, terminal.width() or 200):
        app.say(line)
    for note in job.notes:
        app.note(note)
    if job.error is not None and job.error.hint:
        app.note(job.error.hint)
