"""A sign of life on standard error while something takes its time; nothing where that is no terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

DELAY_S = 0.3
"""What is done sooner needs no sign of life."""
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Spinner:
    """Turns from `with` until `stop()`, or the block's end."""

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        self._text = text
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if not quiet and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._turn, name="spinner", daemon=True)

    def __enter__(self) -> Spinner:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Clears the line; may be called again."""
        self._ended.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None

    def _turn(self) -> None:
        if self._ended.wait(DELAY_S):
            return
        count = 0
        while True:
            sys.stderr.write(f"\r{_FRAMES[count % len(_FRAMES)]} {self._text}\x1b[K")
            sys.stderr.flush()
            count += 1
            if self._ended.wait(0.1):
                break
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
