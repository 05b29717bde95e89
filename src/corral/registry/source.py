"""The contract every source of models keeps: what a reference means there, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Protocol

from corral.descriptors import Descriptor
from corral.lazy_dataclass import dataclass
from corral.refs import Ref


class Body(Protocol):
    """One answer's bytes, read in a thread. `readinto` gives 0 at the end; it never gives more than was asked for.

    It may also have `etag` (a strong one, or None), by which a file without a digest is known to be the same, and
    `abort()`, which another thread calls to make the reading one fail soon.
    """

    status: int  # 200, or 206 when a range was asked for and given
    offset: int  # where in the blob the first byte belongs: 0 when the server ignored the range
    total: int | None  # the whole blob's size, when the server says it

    def readinto(self, buffer: memoryview) -> int:
        """Blocks until at least one byte is there. Raises Unavailable when nothing came for `stall_s`."""
        ...

    def close(self) -> None: ...


Opener = Callable[[int, int | None], Body]
"""`open(offset, length)`: from `offset` on, `length` bytes or to the end. May be called from several threads at once,
again after failures, and much later: it renews tokens and follows redirects anew each time. Raises RegistryError."""


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """One blob as its source offers it. Without a digest (a plain URL) it is known only once it is here."""

    media_type: str
    open: Opener
    digest: str | None = None
    size: int | None = None
    data: bytes | None = None  # small ones, here already
    etag: str | None = None  # changes when the content does, where the source says so
    title: str = ""  # a file's name, for people


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What a reference resolved to. `manifest` is exactly as the registry has it, or made by us where there is none.

    A made one may be missing only while a blob's digest is unknown: then `finish(digests, sizes)` makes it.
    """

    ref: Ref
    blobs: tuple[RemoteBlob, ...]
    manifest: bytes | None
    manifest_type: str
    finish: Callable[[tuple[Descriptor, ...]], bytes] | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()  # what the user should know, such as which quantization was picked


class Source(Protocol):
    """A place models come from. All methods block."""

    def resolve(self, ref: Ref) -> RemoteModel:
        """Raises NotInRegistry, NotAllowedThere, RateLimited, Unavailable, ManifestError, EgressRefused."""
        ...
