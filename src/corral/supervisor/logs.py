"""Engines' logs: one file per unit and generation, bounded, with a tail and followers.

Engines append to their file themselves (O_APPEND), so it cannot be renamed away from under them. When it grows over
its bound its content is copied to `<name>.1` and the file is truncated: the engine goes on at its new beginning.
Readers take part by two signs, a changed `.1` and a file shorter than their position, and so lose no line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path

from corral.config.paths import Paths

KEPT_GENERATIONS = 5
"""Logs kept per model, the newest included."""

MAX_LOG_BYTES = 8 << 20
"""A live file's bound. With its `.1` a generation takes twice that at most."""

MAX_LINE_BYTES = 1 << 16
"""Followers cut longer lines; a progress bar without newlines must not fill their memory."""

POLL_S = 0.1
_CHUNK_BYTES = 1 << 16
_START_BYTES = 1 << 20


def log_file(paths: Paths, model: str, generation: int) -> Path:
    """Where a unit's output goes. Nothing is created."""
    return _directory(paths, model) / f"{generation}.log"


def prepare(paths: Paths, model: str, generation: int) -> Path:
    """`log_file` for a unit that is about to start: its directory exists, the file is empty, old ones are gone. Blocks.

    A file that an earlier run left under the same generation moves to `.1`.
    """
    path = log_file(paths, model, generation)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        path.replace(_rotated(path))
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    prune(paths, model)
    return path


def log_files(paths: Paths, model: str) -> list[Path]:
    """The model's logs, oldest generation first; the last is the one being written. Blocks briefly."""
    return sorted(_directory(paths, model).glob("*.log"), key=_generation)


def last_generation(paths: Paths, model: str) -> int:
    """The highest generation that left a log, 0 when none did: a daemon counts on from there. Blocks briefly."""
    return max((_generation(path) for path in log_files(paths, model)), default=0)


def prune(paths: Paths, model: str, keep: int = KEPT_GENERATIONS) -> list[Path]:
    """Removes all but the `keep` newest logs with their `.1`, and returns those. Blocks."""
    gone = log_files(paths, model)[:-keep] if keep else log_files(paths, model)
    for path in gone:
        path.unlink(missing_ok=True)
        _rotated(path).unlink(missing_ok=True)
    return gone


def cap(path: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Moves the content of a file over its bound to `.1`; True when it did. Blocks for the copy.

    What an engine writes between the last look at the file's size and its truncation, some microseconds, is lost.
    Of a file more than twice over its bound only the last `max_bytes` are kept.

    Raises OSError when the copy cannot be written; when the disk is full, the file's content is then gone.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(fd).st_size
        if size <= max_bytes:
            return False
        rotated = _rotated(path)
        fresh = rotated.with_name(rotated.name + ".tmp")
        into = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            at = size - max_bytes if size > 2 * max_bytes else 0
            # Sparse, so that positions in the copy are those of the original.
            os.lseek(into, at, os.SEEK_SET)
            while data := os.pread(fd, 1 << 20, at):
                at += os.write(into, data)
            # Truncated before renamed: a reader that sees a new `.1` may rely on it being complete.
            os.ftruncate(fd, 0)
        except OSError as error:
            # No room for a copy is the very case in which the log must not go on growing.
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                os.ftruncate(fd, 0)
            fresh.unlink(missing_ok=True)
            raise
        finally:
            os.close(into)
        fresh.replace(rotated)
    finally:
        os.close(fd)
    return True


async def keep_bounded(
    live: Callable[[], Iterable[Path]], every_s: float = 5.0, max_bytes: int = MAX_LOG_BYTES
) -> None:
    """Caps the files that `live` names, again and again, for ever: a task of whoever owns the units."""
    while True:
        for path in list(live()):
            # A disk that fails here fails elsewhere too, where somebody is told; the next round tries again.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(cap, path, max_bytes)
        await asyncio.sleep(every_s)


def tail(path: Path, lines: int = 50, max_bytes: int = 1 << 16) -> str:
    """The last whole `lines` of a log, of `max_bytes` at most; empty when there is none. Blocks briefly."""
    return _tail(path, lines, max_bytes)[0].decode("utf-8", "replace")


async def follow(
    source: Path | Callable[[], Sequence[Path]], *, lines: int = 50, poll_s: float = POLL_S
) -> AsyncGenerator[bytes, None]:
    """The last `lines`, then what comes, for ever: chunks of whole lines, each with its newline.

    `source` may be a function that gives a model's logs, oldest first: when its last one changes, what is left of the
    former is given and then the new one from its beginning. A last line without newline comes when a generation ends.
    """
    find = source if callable(source) else lambda: (source,)
    reader: _Reader | None = None
    while True:
        files = find()
        newest = files[-1] if files else None
        if newest is not None and (reader is None or reader.path != newest):
            former, reader = reader, _Reader(newest)
            if former is None:
                if first := reader.start(lines):
                    yield first
            else:
                while rest := former.read():
                    yield rest
                    await asyncio.sleep(0)
                if last := former.unfinished():
                    yield last
        if reader is not None and (chunk := reader.read()):
            yield chunk
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(poll_s)


class _Reader:
    """A position in one growing file. Each read is a short one from the page cache; no descriptor is kept open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._partial = b""
        self._seen_rotated = _identity(_rotated(path))
        self._short_before = False

    def start(self, lines: int) -> bytes:
        """Goes to the end, and returns the last `lines` before it."""
        found, self._offset, self._partial = _tail(self.path, lines, _START_BYTES)
        return found + self._whole(b"")

    def read(self) -> bytes:
        """Whole lines that were not read yet, or nothing."""
        while True:
            rotated = _identity(_rotated(self.path))
            moved = rotated != self._seen_rotated
            data = _read(_rotated(self.path) if moved else self.path, self._offset)
            if data:
                self._offset += len(data)
                self._short_before = False
                # Leading zeros: a hole, where a file far over its bound lost its beginning.
                if whole := self._whole(data.lstrip(b"\0")):
                    return whole
            elif moved:
                self._offset, self._seen_rotated = 0, rotated
            elif self._offset > _size(self.path):
                # Being rotated right now, or cut by somebody else: then it still looks so at the next poll.
                if self._short_before:
                    self._offset = 0
                self._short_before = not self._short_before
                return b""
            else:
                return b""

    def unfinished(self) -> bytes:
        """The last line when it has no newline, with one."""
        rest, self._partial = self._partial, b""
        return rest + b"\n" if rest else b""

    def _whole(self, data: bytes) -> bytes:
        data = self._partial + data
        end = data.rfind(b"\n") + 1
        self._partial = data[end:]
        if len(self._partial) > MAX_LINE_BYTES:
            return data[:end] + self.unfinished()
        return data[:end]


def _tail(path: Path, lines: int, max_bytes: int) -> tuple[bytes, int, bytes]:
    """The last whole lines, the position after what was read, and an unfinished line before that position."""
    size = _size(path)
    start = max(0, size - max_bytes)
    data = _read(path, start, size - start)
    end = start + len(data)
    if start:
        data = data.partition(b"\n")[2]
    whole, newline, partial = data.rpartition(b"\n")
    found = (whole + newline).splitlines(keepends=True)
    before = _rotated(path)
    if len(found) < lines and not start and (room := max_bytes - len(data)) > 0 and (older := _size(before)):
        # The head of this file may end a line that began in the other.
        at = max(0, older - room)
        earlier = _read(before, at, older - at).lstrip(b"\0") + whole + newline
        found = (earlier.partition(b"\n")[2] if at else earlier).splitlines(keepends=True)
    return b"".join(found[-lines:] if lines else []), end, partial


def _directory(paths: Paths, model: str) -> Path:
    quoted = urllib.parse.quote(model, safe="")
    if quoted in (".", ".."):  # quoting leaves them as they are, and they mean something else
        quoted = quoted.replace(".", "%2E")
    if len(quoted) > 200:  # a file's name may have 255 bytes
        quoted = f"{quoted[:180]}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"
    return paths.logs_dir / quoted


def _generation(path: Path) -> int:
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1


def _rotated(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, offset: int, count: int = _CHUNK_BYTES) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, count, offset)
    finally:
        os.close(fd)
