"""The names of a store: its `index.json`, read without locks and replaced as a whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, NamedTuple

from corral.descriptors import INDEX, Descriptor, check_digest, descriptor_from
from corral.errors import CallerError, ManifestError, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable
from corral.store.layout import Layout

REF_NAME = "org.opencontainers.image.ref.name"
SET_AT = "corral.set-at"
BYTES = "corral.bytes"
MAX_NAME = 2048
_NONE: Mapping[str, str] = MappingProxyType({})
_FOREIGN_WRITE_S = 1.0
"""skopeo writes index.json in place: for so long a broken one may be one that is being written."""


class Named(NamedTuple):  # made ten thousand at a time, in a third of a dataclass's time
    """A name and what it points to. The descriptor's annotations are the entry's, Corral's own left out."""

    name: str
    descriptor: Descriptor
    at_wall_s: float  # since when it points there; 0.0 when another tool wrote it
    bytes: int | None  # all of the model's blobs together; None when another tool wrote it


@dataclass(frozen=True, slots=True)
class View:
    """One reading of the index. Not to be changed."""

    document: dict[str, Any]
    named: Mapping[str, Named]
    roots: tuple[Descriptor, ...]  # every entry, those without a name too
    stamp: tuple[int, ...] = field(default=())


class Index:
    """Reads and writes the index. Thread-safe; writers have the store's lock."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._last: View | None = None

    def read(self) -> View:
        """Raises StoreError when the file is missing or damaged."""
        deadline = time.monotonic() + _FOREIGN_WRITE_S
        while True:
            try:
                return self._read()
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self._layout.root} is no model store: it has no index.json", hint="prepare it first"
                ) from error
            except OSError as error:
                raise durable.said(error, "read the store's index") from error
            except (ValueError, TypeError, KeyError, AttributeError, ManifestError) as error:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self._layout.index} is damaged: {error}",
                        hint="no blob is lost: put a copy of the file back, or pull the models again",
                    ) from error
                time.sleep(0.02)

    def write(self, view: View, entries: list[dict[str, Any]]) -> None:
        """Replaces the entries of `view`, on the disk when this returns. The caller has the store's lock."""
        document = {**view.document, "schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        with durable.disk_errors("write the store's index"):
            durable.replace(self._layout.index, data, self._layout.private / "index.json.new")

    def _read(self) -> View:
        last = self._last
        with self._layout.index.open("rb") as file:
            seen = _stat(file.fileno())
            if last is not None and last.stamp == seen:
                return last
            document = json.loads(file.read())
        entries = document.get("manifests", [])
        roots, named = [], {}
        for entry in entries:
            descriptor, name, at, size = _parsed(entry)
            roots.append(descriptor)
            if name:
                named[name] = Named(name, descriptor, float(at or 0), None if size is None else int(size))
        view = View(document, MappingProxyType(named), tuple(roots), seen)
        self._last = view
        return view


def _parsed(entry: Any) -> tuple[Descriptor, str | None, str | None, str | None]:
    """An entry's descriptor without the annotations that follow: its name, since when, the model's bytes."""
    notes = entry.get("annotations") or _NONE
    name, at, size = notes.get(REF_NAME), notes.get(SET_AT), notes.get(BYTES)
    if name is not None and not isinstance(name, str):
        raise ManifestError("a name is no text", hint="the index is damaged")
    if name is not None and at is not None and size is not None and len(notes) == 3 and type(entry.get("size")) is int:
        # Nearly all of them, of which there may be thousands: no annotations of their own, and one object for that.
        root = Descriptor(str(entry.get("mediaType", "")), check_digest(entry.get("digest")), entry["size"], _NONE)
        return root, name, at, size
    root = descriptor_from(entry)
    rest = {key: value for key, value in root.annotations.items() if key not in (REF_NAME, SET_AT, BYTES)}
    return Descriptor(root.media_type, root.digest, root.size, MappingProxyType(rest)), name, at, size


def entry_of(name: str, descriptor: Descriptor, at_wall_s: float, size: int) -> dict[str, Any]:
    """The index's entry for a name."""
    notes = {**descriptor.annotations, REF_NAME: name, SET_AT: f"{at_wall_s:.3f}", BYTES: str(size)}
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, notes).as_data()


def name_in(entry: Mapping[str, Any]) -> str | None:
    """The name of an index's entry."""
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return name if isinstance(name, str) else None


def check_name(name: str) -> str:
    """`name`, when the index can have it. What names mean is not the store's business. Raises CallerError."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise CallerError(
            f"{name[:60]!r} cannot be a model's name", hint=f"a name has 1 to {MAX_NAME} printable characters"
        )
    return name


def _stat(fd: int) -> tuple[int, ...]:
    seen = os.fstat(fd)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
