"""The tests that failed, written to a file for whoever runs them again by themselves, as `.ci/run` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


class Failed:
    """A pytest plugin that writes their names, one a line, as `pytest @FILE` takes them.

    Nothing is written of a run that ended otherwise than by failing tests: what it did not come to is not known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.TESTS_FAILED:
            reports = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
            self._path.write_text("".join(f"{name}\n" for name in dict.fromkeys(report.nodeid for report in reports)))
