"""The warden as a program: its arguments, the lock that makes it the only one, and its way into the background."""

from __future__ import annotations

import contextlib
import fcntl
import os

from .journal import note
from .records import Records
from .server import Server, listen

USAGE = "usage: warden --socket PATH --dir DIR [--linger-s N] [--idle-s N] [--detach]"
BAD_USAGE, ANOTHER_RUNS, CANNOT_START = 2, 3, 4
"""Exit codes. With --detach, 0 means that the warden, now in the background, listens."""


def main(arguments: list[str]) -> int:
    """Runs the warden to its end. `--linger-s` is the wait for a daemon, `--idle-s` the stay with nothing to do."""
    options = {"--socket": "", "--dir": "", "--linger-s": "600", "--idle-s": "5"}
    detach, rest = False, list(arguments)
    try:
        while rest:
            name = rest.pop(0)
            if name == "--detach":
                detach = True
            else:
                options[name], _ = rest.pop(0), options[name]
        path, directory = options["--socket"], options["--dir"]
        linger_s, idle_s = float(options["--linger-s"]), float(options["--idle-s"])
        if not path or not directory:
            raise ValueError("a socket and a directory are needed")
    except (KeyError, IndexError, ValueError) as error:
        note(f"{error!r}\n{USAGE}")
        return BAD_USAGE
    os.closerange(3, 1024)  # whatever a careless starter let through would live as long as we do
    try:
        lock = _lock(directory)
        if lock is None:
            note("another one runs on this state directory")
            return ANOTHER_RUNS
        listener = listen(path)
    except OSError as error:
        note(f"cannot start: {error}")
        return CANNOT_START
    if detach:
        if os.fork():
            os._exit(0)  # the starter's wait ends here, and it has no child to reap later
        os.setsid()
    os.chdir("/")
    note(f"up as process {os.getpid()}")
    try:
        Server(listener, Records(directory), linger_s, idle_s).run()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(lock)
    return 0


def _lock(directory: str) -> int | None:
    """A descriptor that holds the lock of this state directory, or None when another process has it."""
    fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
