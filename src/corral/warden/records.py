"""The warden's memory on disk: one file per engine, so that the next warden knows what the last one left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from . import kernel
from .journal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

GONE_WITHIN_S = 2.0
"""How long the end of a leftover is waited for at start-up."""


class Records:
    """Files `<mark>.json` in one directory. Written by rename, without fsync: a reboot leaves no engine to know of."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def write(self, mark: str, record: Record) -> None:
        """Raises OSError when the disk takes no more."""
        path = f"{self._directory}/{mark}.json"
        fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as file:
            file.write(json.dumps(record).encode())
        os.replace(path + ".tmp", path)

    def remove(self, mark: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._directory}/{mark}.json")

    def read(self) -> dict[str, Record]:
        """Every readable record by its mark. Half-written and foreign files are removed."""
        found: dict[str, Record] = {}
        for name in sorted(os.listdir(self._directory)):
            path = f"{self._directory}/{name}"
            if name.endswith(".json.tmp"):
                os.unlink(path)
            elif name.endswith(".json"):
                try:
                    with open(path, "rb") as file:
                        record = json.loads(file.read())
                    if not (isinstance(record["unit"], str) and type(record["pid"]) is int and record["pid"] > 1):
                        raise TypeError(f"{name} is no record")
                    found[name.removesuffix(".json")] = record
                except (OSError, ValueError, KeyError, TypeError) as error:
                    note(f"{name} is unreadable and goes: {error}")
                    self.remove(name.removesuffix(".json"))
        return found


def end_leftovers(records: dict[str, Record]) -> None:
    """Kills what still runs of an earlier warden's engines, and notes in each record that its exit was not seen.

    A process is only touched when its start time is the recorded one, or when it carries the record's mark.
    """
    open_ones = {mark: record for mark, record in records.items() if record.get("exit") is None}
    victims: set[int] = set()
    for record in open_ones.values():
        pid, known = record["pid"], record.get("identity")
        if known and kernel.identity(pid) == known:
            victims.add(pid)
            try:
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
            except OSError:
                pass
    victims.update(kernel.marked(set(open_ones)))
    identities = {pid: kernel.identity(pid) for pid in victims}
    for pid in victims:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            note(f"ended {pid}, left by an earlier warden")
    deadline = time.monotonic() + GONE_WITHIN_S
    while any(who and kernel.identity(pid) == who for pid, who in identities.items()) and time.monotonic() < deadline:
        time.sleep(0.005)
    for record in open_ones.values():
        record["exit"] = {"code": None, "signal": None, "at": time.time(), "asked": False}
