"""The journal: events kept on disk, one JSON line each, so that a later daemon, and `corral story`, know them.

At most two files of some megabytes: the one that is written, and the one before it. Lines are written off the event
loop, within a second, and at once when something went wrong. A line that was cut by a crash is skipped by readers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corral import clock
from corral.api import EventInfo, dump

MAX_BYTES = 4 << 20
"""From this size on a file is put aside, and the one put aside before is gone."""
WITHIN_S = 1.0
PENDING = 20_000
"""Entries kept for a disk that takes none; then the oldest go."""
SAME_REQUEST_S = 10.0
"""Of the same news of one model's requests, one entry in so long is kept: a full queue must not push out everything."""

RESUMED = 500
"""So many of an earlier daemon's entries are in a new one's event log."""

_TAIL_BYTES = 256 << 10
_GAP = 1000

Say = Callable[[str], None]


class Journal:
    """The journal of one state directory, to write. One event loop gives it entries."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES, say: Say = lambda text: None) -> None:
        """`say` is told, once until it works again, when nothing can be written."""
        self._file, self._older = files(directory)
        self._max_bytes, self._say = max_bytes, say
        self._pending: deque[EventInfo] = deque(maxlen=PENDING)
        self._some, self._urgent = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._flushing: set[asyncio.Task[bool]] = set()
        self._said: dict[tuple[str, str | None, Any], float] = {}
        self._failing = False

    def take(self, entry: EventInfo) -> None:
        """Keeps `entry`, unless it is one of many that say the same."""
        if entry.kind == "journal.failing" or (entry.kind.startswith("request.") and self._said_lately(entry)):
            return
        self._pending.append(entry)
        self._some.set()
        if went_wrong(entry):
            self._urgent.set()

    async def run(self) -> None:
        """Writes what comes, for ever."""
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(WITHIN_S):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            if not await self.flush():
                await asyncio.sleep(WITHIN_S)

    async def flush(self) -> bool:
        """Writes what has come so far; False when that was not possible, and it stays to be written.

        What is being written goes on when whoever asked for it is cancelled, and the next `flush` waits for it: `run`
        is cancelled before the last one, and what it had begun must be there when a server that takes over reads."""
        flushing = asyncio.create_task(self._flush(), name="write the journal")
        self._flushing.add(flushing)
        flushing.add_done_callback(self._flushing.discard)
        return await asyncio.shield(flushing)

    async def _flush(self) -> bool:
        async with self._writing:
            batch = list(self._pending)
            self._pending.clear()
            self._some.clear()
            self._urgent.clear()
            if not batch:
                return True
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                self._pending.extendleft(reversed(batch))
                self._some.set()
                if not self._failing:
                    self._say(f"events are not kept on disk: {self._file}: {error.strerror or error}")
                self._failing = True
                return False
            self._failing = False
            return True

    def _said_lately(self, entry: EventInfo) -> bool:
        what, now = (entry.kind, entry.model, entry.data.get("code")), clock.monotonic()
        if now - self._said.get(what, float("-inf")) < SAME_REQUEST_S:
            return True
        if len(self._said) >= PENDING:  # refused names can be any
            self._said.clear()
        self._said[what] = now
        return False

    def _write(self, batch: list[EventInfo]) -> None:
        lines = b"".join(json.dumps(dump(entry), ensure_ascii=False, default=str).encode() + b"\n" for entry in batch)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # what a crash cut off must not spoil the next line
            while lines:
                lines = lines[os.write(fd, lines) :]
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if size > self._max_bytes:
            self._file.replace(self._older)


def files(directory: Path) -> tuple[Path, Path]:
    """The file that is written and the one before it."""
    return directory / "events.jsonl", directory / "events.1.jsonl"


def went_wrong(entry: EventInfo) -> bool:
    """Whether `entry` should be on disk at once."""
    return entry.kind in ("bug", "unit.hung", "unit.ended", "server.ending") or entry.data.get("after") in (
        "backoff",
        "failed",
    )


def read(directory: Path, *, about: str | None = None) -> Iterator[EventInfo]:
    """Every kept entry, oldest first; with `about`, at least those that name it anywhere, and the server's own.

    Blocks. What is damaged is left out; nothing is raised.
    """
    name = None if about is None else json.dumps(about, ensure_ascii=False)[1:-1].encode()
    for file in reversed(files(directory)):
        try:
            with file.open("rb") as lines:
                for line in lines:
                    wanted = name is None or name in line or b'"server.' in line
                    if wanted and (entry := _entry(line)) is not None:
                        yield entry
        except OSError:
            continue


def last(directory: Path) -> list[EventInfo]:
    """The last entries, as far as they are in the end of the newest file. Blocks, for a moment."""
    for file in files(directory):
        try:
            with file.open("rb") as lines:
                lines.seek(max(0, lines.seek(0, os.SEEK_END) - _TAIL_BYTES))
                ending = lines.read().split(b"\n")[-RESUMED - 1 :]
        except OSError:
            continue
        if found := [entry for line in ending if (entry := _entry(line)) is not None]:
            return found
    return []


def next_number(entries: list[EventInfo]) -> int:
    """The first number of a daemon that comes after these. Where the last one ended without a word, numbers that it may
    have given out and not written down are left out."""
    if not entries:
        return 1
    newest = max(entry.seq for entry in entries)
    clean = entries[-1].kind == "server.ended"
    return newest + 1 if clean else (newest // _GAP + 1) * _GAP + 1


def _entry(line: bytes) -> EventInfo | None:
    try:
        data = json.loads(line)
        seq, wall_s, kind, text = data["seq"], data["wall_s"], data["kind"], data["text"]
        model, unit, more = data.get("model"), data.get("unit"), data.get("data")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not (type(seq) is int and isinstance(wall_s, (int, float)) and isinstance(kind, str) and isinstance(text, str)):
        return None
    if not (isinstance(model, str | None) and isinstance(unit, str | None)):
        return None
    return EventInfo(seq, wall_s, kind, model, unit, text, more if isinstance(more, dict) else {})
