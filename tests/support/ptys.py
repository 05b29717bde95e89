"""A program on a pseudo-terminal: what a person would see and type."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal:
    """Everything the program wrote so far is `seen`; `wait_for` reads on until a text shows up after the last one."""

    def __init__(self, descriptor: int, child: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self._at = 0
        self.child = child
        self.seen = ""

    def type(self, text: str) -> None:
        """Ctrl-C is "\\x03", Ctrl-D is "\\x04", Enter is "\\r"."""
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str, deadline_s: float = 20.0) -> str:
        """What came up to and with `text`. Fails at the deadline, or when the program ended before."""
        end = time.monotonic() + deadline_s
        while (found := self.seen.find(text, self._at)) < 0:
            left = end - time.monotonic()
            assert left > 0 and self._read(left), f"{text!r} did not come; seen: {self.seen[self._at :]!r}"
        came = self.seen[self._at : found + len(text)]
        self._at = found + len(text)
        return came

    def ended(self, deadline_s: float = 20.0) -> int:
        """The program's exit status, once it has ended and all it wrote was read."""
        end = time.monotonic() + deadline_s
        while self._read(max(0.0, end - time.monotonic())):
            assert time.monotonic() < end, f"it did not end; seen: {self.seen!r}"
        return self.child.wait(max(0.1, end - time.monotonic()))

    def interrupted(self, deadline_s: float = 20.0) -> int:
        """Presses Ctrl-C until the program ends, and gives its exit status.

        Once is not always enough: Python does not see a signal that comes just before it begins to wait for a line.
        """
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            self.type("\x03")
            again = time.monotonic() + 0.5
            while time.monotonic() < again:
                if not self._read(0.5):
                    return self.child.wait(5)
        raise AssertionError(f"it did not end; seen: {self.seen!r}")

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # Linux says EIO when the last holder of the other side has gone
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def terminal(*args: str, env: dict[str, str], columns: int = 80) -> Iterator[Terminal]:
    """`python -m corral ARGS` with a terminal of its own on all three streams; killed if it is there at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", _BECOME, *args],
        env={name: value for name, value in {"TERM": "xterm", **env, "INPUTRC": "/dev/null"}.items() if value},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, child)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(ours)


# A terminal sends Ctrl-C to the session that it controls: the child takes it as its own before it becomes corral.
_BECOME = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "corral", *sys.argv[1:]])
"""
