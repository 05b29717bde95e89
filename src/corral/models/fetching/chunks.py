"""The record on disk of which chunks of a partial file are there.

A small file beside the partial one: a line of JSON that says what is being fetched, then one byte per chunk. A byte is
written only after its chunk is; so whoever finds it may trust the chunk, as long as the kernel that took the chunk is
still running. After a power loss or a reboot only chunks that were known to be on the disk itself count.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from corral.lazy_dataclass import dataclass
from corral.store.durable import sync_directory

CHUNK_BYTES = 8 << 20
"""What a kill at the worst moment can cost per connection; each whole chunk is kept."""

MISSING, WRITTEN, SYNCED = 0, 1, 2
_MOST_HEADER = 4096
_MOST_CHUNKS = 1 << 26


@dataclass(frozen=True, slots=True)
class Content:
    """What makes two downloads the same. Without a digest and an etag nothing does."""

    digest: str | None
    etag: str | None
    size: int | None

    def same(self, other: Content) -> bool:
        """Whether what was fetched as `other` may be gone on with as this."""
        if self.size != other.size:
            return False
        if self.digest is not None:
            return self.digest == other.digest
        return other.digest is None and self.etag is not None and self.etag == other.etag


class Chunks:
    """The chunks of one file. One owner per file at a time; its lock is the partial's. Not safe between threads."""

    def __init__(self, path: Path, fd: int, offset: int, states: bytearray) -> None:
        self.path = path
        self._fd = fd
        self._offset = offset
        self.states = states

    @classmethod
    def open(cls, path: Path, data: Path, content: Content, *, chunk_bytes: int = CHUNK_BYTES) -> Chunks:
        """The record at `path` about the file at `data`: the old one as far as it can be trusted, else an empty one.

        When nothing of the old one counts, `data` is emptied first. Raises OSError.
        """
        boot = boot_id()
        count = -(-content.size // chunk_bytes) if content.size is not None else 0
        here = data.stat().st_size if data.exists() else 0
        states = _trusted(path, content, chunk_bytes, boot, here) if content.size is not None else None
        if states is None:
            states = bytearray(count)
            path.unlink(missing_ok=True)
            if here:
                os.truncate(data, 0)
                sync_directory(path.parent)  # the old record must not come back beside other content
        about = {"version": 1, "content": asdict(content), "chunk_bytes": chunk_bytes, "boot": boot}
        header = json.dumps(about).encode() + b"\n"
        fresh = path.with_name(path.name + ".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, header + bytes(states), 0)
            fresh.replace(path)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, len(header), states)

    def mark(self, index: int) -> None:
        """Records that the chunk was written. Raises OSError."""
        self.states[index] = WRITTEN
        os.pwrite(self._fd, bytes((WRITTEN,)), self._offset + index)

    def written(self) -> list[int]:
        """The chunks that are written and perhaps not on the disk yet."""
        found, at = [], self.states.find(WRITTEN)
        while at >= 0:
            found.append(at)
            at = self.states.find(WRITTEN, at + 1)
        return found

    def mark_synced(self, indexes: list[int]) -> None:
        """Records that the chunks, which were written before a sync of the file, are on the disk. Raises OSError."""
        for index in indexes:
            self.states[index] = SYNCED
        if indexes:
            first, last = indexes[0], indexes[-1] + 1
            os.pwrite(self._fd, bytes(self.states[first:last]), self._offset + first)

    def close(self) -> None:
        os.close(self._fd)


def _trusted(path: Path, content: Content, chunk_bytes: int, boot: str | None, here: int) -> bytearray | None:
    """The states that still count, or None when nothing does."""
    assert content.size is not None
    count = -(-content.size // chunk_bytes)
    try:
        with path.open("rb") as file:
            header = file.readline(_MOST_HEADER)
            states = bytearray(file.read(min(count, _MOST_CHUNKS)))
        about = json.loads(header)
        if about["version"] != 1 or about["chunk_bytes"] != chunk_bytes:
            return None
        if not content.same(Content(**about["content"])):
            return None
        same_boot = boot is not None and about["boot"] == boot
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or one that was torn by a power loss
    states.extend(bytes(count - len(states)))
    least = WRITTEN if same_boot else SYNCED
    for index, state in enumerate(states):
        end = min(content.size, (index + 1) * chunk_bytes)
        if state not in (WRITTEN, SYNCED) or state < least or end > here:
            states[index] = MISSING
    return states if any(states) else None


def boot_id() -> str | None:
    """What changes when the kernel starts anew; None where that cannot be known."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except OSError:
        return None
