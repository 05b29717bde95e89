"""How an installation's steps are shown: one line written anew on a terminal, one line per phase elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.api_downloads import Progress
from corral.cli.app import App
from corral.cli.bars import Line

if TYPE_CHECKING:
    from corral.environments.child import Step


class Steps:
    """`say` takes each step; `end` gives the terminal back."""

    def __init__(self, app: App) -> None:
        import sys

        self._app = app
        self._live = sys.stderr.isatty()
        self._line = Line(app)
        self._phase = ""

    def say(self, step: Step) -> None:
        figures = f" ({step.done} of {step.total})" if step.total else ""
        self._line.show(Progress(f"{step.phase}{figures} {step.text}".rstrip()))
        if not self._live and not self._app.json and step.phase != self._phase:
            self._app.note(f"{step.phase}: {step.text}" if step.text else step.phase)
        self._phase = step.phase

    def end(self) -> None:
        self._line.end()
