"""Attaching to downloads: their progress until all are over, or until Ctrl-C, which leaves them running."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from corral.cli.app import App
from corral.cli.bars import Bars
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.api_downloads import DownloadInfo
    from corral.client import Client


def attach(app: App, client: Client, job: DownloadInfo) -> DownloadInfo:
    """The download once it is over or paused. Raises its error when it failed.

    A KeyboardInterrupt goes on up after it was said that the download goes on.
    """
    bars = Bars(app)
    bars.show(job)
    try:
        if not job.over:
            with closing(client.follow_downloads()) as downloads:
                for each in downloads:
                    if each.id != job.id:
                        continue
                    job = each
                    bars.show(job)
                    if job.over or job.state == "paused":
                        break
    except KeyboardInterrupt:
        bars.end()
        app.note(f"The download goes on. See it with: corral downloads; end it with: corral downloads cancel {job.id}")
        raise
    bars.end(keep=job.state != "done")
    if job.state == "failed" and job.error is not None:
        raise failure(job)
    return job


def failure(job: DownloadInfo) -> CorralError:
    """The download's error, as the class of its code."""
    from corral.api import dump
    from corral.connection import error_from

    return error_from(dump(job.error))
