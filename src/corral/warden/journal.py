"""What the warden has to say, on the standard error that its starter pointed at a file."""

from __future__ import annotations

import contextlib
import os


def note(text: str) -> None:
    """Writes one line. Nowhere to write it is no reason to fail."""
    with contextlib.suppress(OSError):
        os.write(2, f"warden: {text}\n".encode("utf-8", "backslashreplace"))
