"""Fetching one blob into a partial file: parallel ranges, gone on with after any end, hashed as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Final, Protocol

from corral.descriptors import digest_of
from corral.errors import DigestMismatch
from corral.lazy_dataclass import dataclass
from corral.models.fetching.attempts import Attempts
from corral.models.fetching.chunks import CHUNK_BYTES, Content
from corral.models.fetching.control import Control
from corral.models.fetching.fetch_run import Run
from corral.models.fetching.partfile import PartFile, disk_error, free_bytes, need_space
from corral.models.fetching.retry import Retry
from corral.models.fetching.unsized import learn_size, stream_unsized
from corral.registry.source import RemoteBlob
from corral.store.durable import sync_directory


class Partial(Protocol):
    """The store's place for a blob that is not whole yet; its lock is ours as long as we have it."""

    @property
    def path(self) -> Path: ...
    @property
    def state_path(self) -> Path: ...


CONNECTIONS = 8

OnProgress = Callable[[int], None]
"""Called with the bytes that are here, now and then, from the thread that called `fetch_blob`."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """How to fetch: what a user may set, and what tests make small."""

    connections: int = CONNECTIONS  # per blob, at most; how many it becomes depends on what more of them bring
    chunk_bytes: int = CHUNK_BYTES
    retry: Retry = field(default_factory=Retry)
    free: Callable[[Path], int] = free_bytes


_AS_EVER: Final = Fetching()


def fetch_blob(
    partial: Partial,
    blob: RemoteBlob,
    *,
    control: Control,
    on_progress: OnProgress = lambda have: None,
    on_note: Callable[[str], None] = lambda text: None,
    how: Fetching = _AS_EVER,
) -> str:
    """The digest of `blob`, whose bytes are in `partial.path` then: all of them, and what the digest says.

    What it leaves on any error is gone on with by the next call. On return most of the file is on the disk; the last
    part of it becomes so when the partial is finished.

    Raises Stopped, DiskFull, StoreError, DigestMismatch (with `changed=True` when the source changed: resolve again)
    and what the source raises.
    """
    digest = ""
    try:
        if blob.data is not None:
            return _write_data(partial, blob.data)
        for _ in range(2):  # other content than promised: perhaps it changed on the way, so once more from the start
            digest = _fetch(partial, blob, control, on_progress, on_note, how)
            if blob.digest in (None, digest):
                return digest
            _forget(partial)
    except OSError as error:
        raise disk_error(error, partial.path) from error
    raise DigestMismatch(
        f"{blob.title or 'a blob'} came twice with other content than its digest says",
        hint="the registry, or something on the way, damages it: pull again later, or by another network or mirror",
        expected=blob.digest,
        found=digest,
    )


def _fetch(
    partial: Partial,
    blob: RemoteBlob,
    control: Control,
    on_progress: OnProgress,
    on_note: Callable[[str], None],
    how: Fetching,
) -> str:
    attempts = Attempts(how.retry, control, on_note)
    size = blob.size if blob.size is not None else learn_size(blob, attempts)
    if size is None:
        _forget(partial)
        return stream_unsized(partial.path, blob, control, attempts, on_progress, how.free)
    content = Content(blob.digest, blob.etag, size)
    part = PartFile(partial.path, partial.state_path, content, chunk_bytes=how.chunk_bytes)
    try:
        need_space(partial.path.parent, size - part.have_bytes, how.free(partial.path.parent), what=blob.title or "it")
        return Run(part, blob, control, attempts, on_progress, connections=how.connections).fetch()
    finally:
        part.close()


def _write_data(partial: Partial, data: bytes) -> str:
    partial.state_path.unlink(missing_ok=True)
    partial.path.write_bytes(data)
    return digest_of(data)


def _forget(partial: Partial) -> None:
    """What is there is of no use: the next run starts from nothing."""
    partial.state_path.unlink(missing_ok=True)
    if partial.path.exists():
        os.truncate(partial.path, 0)
    sync_directory(partial.state_path.parent)
