"""The terminal as Textual's driver has it, but on standard output, so that standard error can go elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver


class OutputDriver(LinuxDriver):
    """Reads keys from standard input and draws on standard output."""

    def __init__(self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None):
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        assert sys.__stdout__ is not None
        self._file = sys.__stdout__
