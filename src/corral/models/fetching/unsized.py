"""Fetching what does not say how long it is: asked first, and else read in one go to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from corral.errors import RegistryError
from corral.models.fetching.attempts import Attempts
from corral.models.fetching.control import Control
from corral.models.fetching.partfile import need_space
from corral.models.fetching.stream import Stream
from corral.registry.source import RemoteBlob

BUFFER_BYTES = 1 << 20
LOOK_BYTES = 64 << 20
"""How often the free space is looked at."""


def learn_size(blob: RemoteBlob, attempts: Attempts) -> int | None:
    """The whole size, by asking for the first byte; None when the server does not say it. Raises RegistryError."""
    while True:
        number = attempts.begin()
        try:
            stream = Stream.open(blob, 0, 1)
            stream.close()
            return stream.total
        except RegistryError as error:
            attempts.failed(error, number)


def stream_unsized(
    path: Path,
    blob: RemoteBlob,
    control: Control,
    attempts: Attempts,
    on_progress: Callable[[int], None],
    free: Callable[[Path], int],
) -> str:
    """Writes all of `blob` to `path`, from the start after each failure. The digest. Raises as `fetch_blob` does."""
    while True:
        number = attempts.begin()
        try:
            return _once(path, blob, control, on_progress, free)
        except RegistryError as error:
            attempts.failed(error, number)


def _once(
    path: Path, blob: RemoteBlob, control: Control, on_progress: Callable[[int], None], free: Callable[[Path], int]
) -> str:
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    stream = Stream.open(blob, 0, None)
    try:
        with path.open("wb", buffering=0) as file:
            looked = -LOOK_BYTES
            while count := stream.read_or_end(buffer, control):
                if stream.at - looked >= LOOK_BYTES:
                    need_space(path.parent, LOOK_BYTES, free(path.parent), what=blob.title or "a file of unknown size")
                    looked = stream.at
                sha.update(buffer[:count])
                written = 0
                while written < count:
                    written += file.write(buffer[written:count]) or 0
                on_progress(stream.at)
    finally:
        stream.close()
    return "sha256:" + sha.hexdigest()
