"""Running a work of the server to its end, with its progress shown."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from corral.api_downloads import Progress
from corral.cli.app import App
from corral.cli.bars import Line

T = TypeVar("T")


def finish(app: App, work: Generator[Progress, None, T]) -> T:
    """What the work gives. Raises the server's error; Ctrl-C ends the work."""
    line = Line(app)
    with closing(work):
        try:
            while True:
                try:
                    line.show(next(work))
                except StopIteration as ended:
                    result: T = ended.value
                    return result
        finally:
            line.end()


def absolute(path: str) -> str:
    """A path as the server, which runs in another directory, must get it."""
    return str(Path(path).expanduser().absolute())
