"""The daemon, which on SIGUSR2 writes down what it holds: run in place of `-m corral`, the file's name first."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import stat
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

EVENTS_KEPT = 500
"""In place of the log's ten thousand, which takes minutes to fill: a log that only fills looks like one that grows."""


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def malloc() -> dict[str, int] | None:
    """What malloc has handed out and not got back, and what it keeps for later; None where it cannot say."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    ask.restype = _Mallinfo
    found = ask()
    return {"held": found.uordblks + found.hblkhd, "spare": found.fordblks}


def descriptors() -> dict[str, str]:
    """What each descriptor of this process leads to: a file's path, or a socket's two names."""
    found = {}
    with os.scandir("/proc/self/fd") as entries:
        names = [entry.name for entry in entries]
    for name in names:
        with suppress(OSError):
            found[name] = _socket(int(name)) or str(Path(f"/proc/self/fd/{name}").readlink())
    return found


def _socket(number: int) -> str | None:
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return None
    with socket.socket(fileno=os.dup(number)) as own, suppress(OSError):
        listens = own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        peer = "listens" if listens else own.getpeername()
        return f"{own.family.name} {own.type.name} {own.getsockname()!r} {peer!r}"
    return "socket without a peer"


def look(place: Path) -> None:
    gc.collect()
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks() if not task.done())
    held = {"blocks": sys.getallocatedblocks(), "malloc": malloc()}
    found = {**held, "tasks": tasks, "objects": len(gc.get_objects()), "fds": descriptors()}
    fresh = place.with_suffix(".new")
    fresh.write_text(json.dumps(found))
    fresh.replace(place)


def main() -> None:
    place = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, lambda *_: look(place))
    from corral.cli.main import entry
    from corral.events import EventLog

    EventLog.__init__.__defaults__ = (EVENTS_KEPT,)

    sys.argv[0] = "corral"
    entry()


if __name__ == "__main__":
    main()
