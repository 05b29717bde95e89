"""What names pointed to before: one log of JSON lines, appended to before the index is changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

from corral.descriptors import Descriptor, descriptor_from
from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass
from corral.store import durable
from corral.store.layout import Layout

REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Past:
    """One change of a name: from `at_wall_s` on it pointed to `digest`, or no longer when `why` is "removed"."""

    digest: str
    at_wall_s: float
    why: str
    descriptor: Descriptor


class History:
    """The changes of every name. Thread-safe to read; writers have the store's lock."""

    def __init__(self, layout: Layout) -> None:
        self._log = layout.history / "log.jsonl"
        self._scratch = layout.private / "history.new"

    def of(self, name: str) -> list[Past]:
        """Oldest first."""
        mark = json.dumps(name).encode()
        return [past for found, past in _parsed(line for line in self._lines() if mark in line) if found == name]

    def every(self) -> dict[str, list[Past]]:
        """Each name that ever was, with its changes, oldest first."""
        names: dict[str, list[Past]] = {}
        for name, past in _parsed(self._lines()):
            names.setdefault(name, []).append(past)
        return names

    def add(self, changes: Sequence[tuple[str, Past]]) -> None:
        """On the disk when this returns."""
        with durable.disk_errors("write the models' history"):
            fd = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(fd).st_size
                # A line that was cut short when its writer was killed would swallow this one.
                start = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
                data = memoryview(start + b"".join(_line(name, past) for name, past in changes))
                while data:
                    data = data[os.write(fd, data) :]
                durable.sync_file(fd)
            finally:
                os.close(fd)
            if not size:
                durable.sync_directory(self._log.parent)

    def rewrite(self, names: dict[str, list[Past]]) -> None:
        """Replaces everything; each name's changes oldest first."""
        data = b"".join(_line(name, past) for name, changes in names.items() for past in changes)
        with durable.disk_errors("write the models' history"):
            durable.replace(self._log, data, self._scratch)

    def _lines(self) -> list[bytes]:
        try:
            return self._log.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise durable.said(error, "read the models' history") from error


def released(changes: Sequence[Past]) -> dict[str, float]:
    """For each digest that a name pointed to and no longer does: when it last stopped. `changes` oldest first."""
    when: dict[str, float] = {}
    before: str | None = None
    for past in changes:
        after = None if past.why == REMOVED else past.digest
        if before is not None and before != after:
            when[before] = past.at_wall_s
        if after is not None:
            when.pop(after, None)
        before = after
    return when


def _line(name: str, past: Past) -> bytes:
    about = {"name": name, "at": past.at_wall_s, "why": past.why, **past.descriptor.as_data()}
    return json.dumps(about, separators=(",", ":")).encode() + b"\n"


def _parsed(lines: Iterator[bytes] | list[bytes]) -> Iterator[tuple[str, Past]]:
    # A line that was cut short is no line.
    for line in lines:
        try:
            data = json.loads(line)
            descriptor = descriptor_from(data)
            past = Past(descriptor.digest, float(data["at"]), str(data["why"]), descriptor)
            yield str(data["name"]), past
        except (ValueError, KeyError, TypeError, ManifestError):
            continue
