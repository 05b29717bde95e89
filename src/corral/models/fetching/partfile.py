"""The file a blob is fetched into, with what is known of its parts, safe between the threads of one download."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from corral.errors import DiskFull, StoreError
from corral.models.fetching.chunks import CHUNK_BYTES, Chunks, Content
from corral.models.fetching.past_cache import PastCache
from corral.models.fetching.spans import Span, Spans
from corral.store.durable import sync_file
from corral.units import show_bytes

SPARE_BYTES = 16 << 20
"""What a download leaves free on the disk."""


class PartFile:
    """An open partial file of known size. Its one lock orders writes, marks and readers of the frontier."""

    def __init__(self, data: Path, record: Path, content: Content, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Opens or makes both files. Raises StoreError, DiskFull."""
        assert content.size is not None
        self.path = data
        self.size = content.size
        self.chunk_bytes = chunk_bytes
        self.changed = threading.Condition()
        self.awaited = 0  # the frontier that somebody waits for; with `changed` held
        try:
            self._chunks = Chunks.open(record, data, content, chunk_bytes=chunk_bytes)
        except OSError as error:
            raise disk_error(error, record) from error
        try:
            self._fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._chunks.close()
            raise disk_error(error, data) from error
        try:
            self.past_cache = PastCache(data)
        except OSError as error:
            os.close(self._fd)
            self._chunks.close()
            raise disk_error(error, data) from error
        self._spans = Spans(content.size, chunk_bytes, self._chunks.states)
        self.found_bytes = self._spans.have_bytes  # here from an earlier run

    def take(self, workers: int) -> Span | None:
        with self.changed:
            return self._spans.take(workers)

    def give_back(self, span: Span) -> None:
        with self.changed:
            self._spans.give_back(span)
            self.changed.notify_all()

    def more_to_take(self) -> bool:
        """Whether a new worker would find something to do. To be asked for while `changed` is held."""
        return self._spans.more_to_take()

    def room(self, span: Span, most: int) -> int:
        """How many bytes of `span` may be read now: its end may have come nearer, and never does within this many."""
        with self.changed:
            return min(most, span.left)

    def put(self, position: int, data: memoryview) -> None:
        """Writes `data`, which lies within what `room` gave. Raises StoreError, DiskFull."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], position + done)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def put_past_cache(self, position: int, data: memoryview) -> None:
        """As `put`, past the page cache as far as that goes."""
        try:
            done = self.past_cache.write(position, data)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self.put(position + done, data[done:])

    def advance(self, span: Span, count: int) -> None:
        """Moves `span` on by `count` bytes that were put, and records chunks that became whole. Raises StoreError."""
        try:
            with self.changed:
                self._spans.advance(span, count, self._chunks.mark)
                # Waking threads for each piece cost more than hashing it.
                if self._spans.done or self._spans.frontier >= self.awaited:
                    self.changed.notify_all()
        except OSError as error:
            raise disk_error(error, self.path) from error

    @property
    def done(self) -> bool:
        return self._spans.done

    @property
    def frontier(self) -> int:
        """Every byte before it is written. To be asked for while `changed` is held."""
        return self._spans.frontier

    @property
    def have_bytes(self) -> int:
        """Bytes written. Exact only while `changed` is held."""
        return self._spans.have_bytes

    def sync(self) -> int:
        """Blocks until the chunks written so far are on the disk, and records that; how many they are."""
        with self.changed:
            indexes = self._chunks.written()
        if not indexes:
            return 0
        try:
            _sync_data(self._fd)
            with self.changed:
                self._chunks.mark_synced(indexes)
        except OSError as error:
            raise disk_error(error, self.path) from error
        return len(indexes)

    def close(self) -> None:
        os.close(self._fd)
        self.past_cache.close()
        self._chunks.close()


_sync_data: Callable[[int], None] = getattr(os, "fdatasync", sync_file)


def free_bytes(path: Path) -> int:
    """What this user may still write on the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def need_space(directory: Path, need: int, free: int, *, what: str) -> None:
    """Raises DiskFull unless `need` more bytes fit, with some to spare."""
    if need + SPARE_BYTES > free:
        raise DiskFull(
            f"{what} needs {show_bytes(need)} more in {directory}, where {show_bytes(free)} are free",
            hint="`corral prune` and `corral rm` make room; what was fetched so far is kept",
            needed_bytes=need,
            free_bytes=free,
        )


def disk_error(error: OSError, path: Path) -> StoreError:
    """What `error` means to the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"the disk became full while {path.name} was fetched ({error.strerror})",
            hint="`corral prune` and `corral rm` make room; then the download goes on where it was",
        )
    if error.errno == errno.EFBIG:
        return DiskFull(
            f"{path} may not become that large ({error.strerror})",
            hint="the file system or a limit of this process forbids it: keep the store elsewhere (CORRAL_DATA_DIR)",
        )
    return StoreError(f"cannot write {path}: {error.strerror}", hint="look at the disk and at who owns the store")
