"""Looking at what a source resolved a reference to."""

from __future__ import annotations

from corral.refs_parse import parse_ref
from corral.registry.source import RemoteBlob, RemoteModel, Source


def resolve(source: Source, text: str) -> RemoteModel:
    """What `text` means there."""
    return source.resolve(parse_ref(text))


def read_blob(blob: RemoteBlob, offset: int = 0, length: int | None = None) -> bytes:
    """Its content from `offset` on, in pieces of an odd size."""
    body = blob.open(offset, length)
    data, buffer = bytearray(), memoryview(bytearray(777))
    try:
        while count := body.readinto(buffer):
            data += buffer[:count]
    finally:
        body.close()
    return bytes(data)


def by_title(model: RemoteModel) -> dict[str, RemoteBlob]:
    """The blobs by the files they are."""
    return {blob.title: blob for blob in model.blobs}
