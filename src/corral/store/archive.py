"""Models as one file and back: an OCI image layout in a tar archive."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from corral.descriptors import INDEX, MAX_MANIFEST_BYTES, Descriptor, decode_json, descriptor_from
from corral.errors import CallerError, DigestMismatch, ManifestError, NotInStore, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable, tar
from corral.store.blobs import HASH_CHUNK_BYTES, Blobs
from corral.store.graph import Graph
from corral.store.index import REF_NAME, Named, check_name
from corral.store.layout import digest_named
from corral.store.naming import Naming
from corral.store.partial import Partial

_CONTAINERD_NAME = "io.containerd.image.name"
"""Where containerd and Docker put the whole name; their ref.name is the tag alone."""
_BLOBS = "blobs/sha256/"
_SMALL_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Bytes done, and bytes in all or 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What an archive has, or had."""

    names: tuple[str, ...]
    blobs: int
    bytes: int  # of blobs


def export(
    blobs: Blobs, graph: Graph, named: Iterable[Named], out: Path | BinaryIO, progress: Progress | None = None
) -> Moved:
    """Writes the models, the same bytes for the same models. The caller holds them.

    A file appears at `out` only when it is whole and on the disk. Raises NotInStore, and DigestMismatch for a blob
    that is damaged: an archive of it is not made.
    """
    chosen = sorted(named, key=lambda each: each.name)
    parts: dict[str, Descriptor] = {}
    for each in chosen:
        parts.update(graph.whole(each.descriptor))
    if isinstance(out, Path):
        with _replacing(out) as file:
            _write(blobs, chosen, parts, file, progress)
    else:
        with durable.disk_errors("write the archive"):
            _write(blobs, chosen, parts, out, progress)
    return Moved(tuple(each.name for each in chosen), len(parts), sum(each.size for each in parts.values()))


def load(
    blobs: Blobs, source: Path | BinaryIO, name: str | None = None, progress: Progress | None = None
) -> tuple[list[Naming], Moved]:
    """Reads an archive's blobs into the store; the caller names them. `name` is for an archive of one model.

    Nothing is written outside the store, and nothing under a digest it does not have. Raises ArchiveRefused, DiskFull.
    """
    # While this is open, no sweep takes what came since.
    with Partial(blobs, f"load {os.getpid()} {secrets.token_hex(8)}", None) as guard:
        try:
            if isinstance(source, Path):
                with durable.disk_errors(f"read {source}"), source.open("rb") as file:
                    return _read(blobs, file, name, progress)
            return _read(blobs, source, name, progress)
        finally:
            guard.discard()


def _write(
    blobs: Blobs, chosen: list[Named], parts: dict[str, Descriptor], out: BinaryIO, progress: Progress | None
) -> None:
    _add(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    entries = [_entry(each) for each in chosen]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    _add(out, "index.json", json.dumps(index, separators=(",", ":"), sort_keys=True).encode())
    done, total = 0, sum(each.size for each in parts.values())
    for digest in sorted(parts):
        blob = blobs.get(digest)
        tar.write_header(out, _BLOBS + parts[digest].hex, blob.size)
        hashed, left = hashlib.sha256(), blob.size
        buffer = memoryview(bytearray(HASH_CHUNK_BYTES))
        with blob.path.open("rb", buffering=0) as file:
            while left and (count := file.readinto(buffer[:left])):
                hashed.update(buffer[:count])
                out.write(buffer[:count])
                left -= count
                done += count
                if progress is not None:
                    progress(done, total)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise DigestMismatch(
                f"the store's file of {digest} is damaged",
                hint="`corral verify --repair` fetches it again",
                path=str(blob.path),
            )
        tar.write_padding(out, blob.size)
    tar.write_end(out)


def _entry(named: Named) -> dict[str, Any]:
    root = named.descriptor
    return Descriptor(root.media_type, root.digest, root.size, {**root.annotations, REF_NAME: named.name}).as_data()


def _add(out: BinaryIO, name: str, data: bytes) -> None:
    tar.write_header(out, name, len(data))
    out.write(data)
    tar.write_padding(out, len(data))


@contextmanager
def _replacing(out: Path) -> Iterator[BinaryIO]:
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    with durable.disk_errors(f"write {out}"):
        try:
            with scratch.open("xb") as file:
                yield file
                file.flush()
                durable.sync_file(file.fileno())
            scratch.replace(out)
            durable.sync_directory(out.parent)
        finally:
            scratch.unlink(missing_ok=True)


def _read(blobs: Blobs, stream: BinaryIO, name: str | None, progress: Progress | None) -> tuple[list[Naming], Moved]:
    reader = tar.Reader(stream)
    index: dict[str, Any] | None = None
    count = done = 0
    for entry in reader:
        if entry.name in ("index.json", "oci-layout"):
            data = _whole(reader, entry)
            if entry.name == "index.json":
                index = _json(data, "its index.json")
            elif not str(_json(data, "its oci-layout").get("imageLayoutVersion", "")).startswith("1."):
                raise tar.refused("its layout is of a version that is not known here")
        elif entry.name.startswith(_BLOBS):
            digest = digest_named(entry.name.removeprefix(_BLOBS))
            if digest is None:
                raise tar.refused(f"{entry.name[:120]!r} is no blob's name")
            _blob(blobs, reader, entry, digest)
            count, done = count + 1, done + entry.size
            if progress is not None:
                progress(done, 0)
    if index is None:
        raise tar.refused("it is no OCI image layout: it has no index.json")
    namings = _namings(index, name)
    return namings, Moved(tuple(each.name for each in namings), count, done)


def _whole(reader: tar.Reader, entry: tar.Entry) -> bytes:
    if entry.size > MAX_MANIFEST_BYTES:
        raise tar.refused(f"its {entry.name} has {entry.size} bytes")
    data = b""
    while more := reader.read(entry.size - len(data)):
        data += more
    return data


def _json(data: bytes, what: str) -> dict[str, Any]:
    try:
        return decode_json(data, what)
    except ManifestError as error:
        raise tar.refused(error.message) from error


def _blob(blobs: Blobs, reader: tar.Reader, entry: tar.Entry, digest: str) -> None:
    if blobs.refresh(digest):
        return  # the next entry skips its bytes
    if entry.size > _SMALL_BYTES:
        blobs.require_room(entry.size)
    with blobs.scratch() as directory:
        file = directory / "blob"
        hashed = hashlib.sha256()
        with file.open("xb", buffering=0) as out:
            while data := reader.read(HASH_CHUNK_BYTES):
                hashed.update(data)
                view = memoryview(data)
                while view:
                    view = view[out.write(view) :]
            durable.sync_file(out.fileno())
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise tar.refused(f"the bytes of {digest} have another digest")
        blobs.put(file, digest)


def _namings(index: dict[str, Any], name: str | None) -> list[Naming]:
    entries = index.get("manifests")
    if not isinstance(entries, list) or not entries:
        raise tar.refused("it has no model")
    if name is not None and len(entries) > 1:
        raise CallerError(
            f"the archive has {len(entries)} models, and one name was given", hint="load it without a name"
        )
    namings = []
    for each in entries:
        try:
            root = descriptor_from(each)
        except ManifestError as error:
            raise tar.refused(error.message) from error
        called = name or root.annotations.get(_CONTAINERD_NAME) or root.annotations.get(REF_NAME)
        if called is None:
            raise CallerError("a model of the archive has no name", hint="give it one (`corral load --name`)")
        notes = {key: value for key, value in root.annotations.items() if not key.startswith("corral.")}
        notes.pop(REF_NAME, None)
        namings.append(Naming(check_name(called), Descriptor(root.media_type, root.digest, root.size, notes)))
    return namings


def lacking(error: NotInStore) -> StoreError:
    """The error for an archive that does not have all of its models' blobs."""
    return tar.refused(f"it lacks a blob of its model: {error.message}")
