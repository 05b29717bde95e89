"""Placing a stored model: its files under their real names in a directory of its own, as engines want them.

Plain layers become symbolic links to blobs, which cost nothing and keep each byte accounted for once; archives are
taken out. The directory is made once, beside the store's blobs, and used by every start; `Store.collect` removes it
with its model.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from corral.artifact import Artifact, File, role_by_name, with_shards
from corral.artifact.media import OLLAMA_LAYER
from corral.descriptors import Descriptor, check_digest
from corral.errors import ManifestError, NotInStore, StoreError
from corral.lazy_dataclass import dataclass
from corral.models.content import read_content
from corral.models.formats.gguf import read_header
from corral.models.inflate import Inflated
from corral.models.untar import make_directories, unpack
from corral.store import durable, locks
from corral.store.store import Store

VERSION: Final = 1
"""Of the rules by which files are placed; what older ones placed is placed again."""
WAIT_S: Final = 900.0
_RECORD, _FILES = "placed.json", "model"
_NOWHERE = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an engine finds a model."""

    digest: str
    directory: Path  # with every file of the model
    main: Path  # the GGUF file to open, the first of several; for safetensors the directory
    format: str
    mmproj: Path | None = None
    adapters: tuple[Path, ...] = ()
    draft: Path | None = None
    template: Path | None = None  # Jinja
    unpacked_bytes: int = 0  # taken on disk besides the blobs


def place(store: Store, digest: str, into: Path | None = None) -> Placed:
    """The model `digest` with its files under their names, placed now or earlier; usually milliseconds.

    Archives are unpacked the first time, which takes as long as writing them does. `into` is a directory of its own,
    by default one in the store. The caller holds the digest while it uses what is placed.

    Raises NotInStore, ManifestError, ModelFileError, DiskFull.
    """
    base = into or placed_root(store) / check_digest(digest).removeprefix("sha256:")
    with store.hold(digest):
        if (found := _known(store, digest, base)) is not None:
            return found
        with _lock(base):
            if (found := _known(store, digest, base)) is not None:
                return found
            part = base.with_name(f"{base.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            try:
                return _place(store, digest, part, base)
            finally:
                shutil.rmtree(part, ignore_errors=True)


def placed_root(store: Store) -> Path:
    """The directory in which models are placed."""
    return store.placed_dir


@contextlib.contextmanager
def _lock(base: Path) -> Iterator[None]:
    path = base.with_name(f"{base.name}.lock")
    with durable.disk_errors(f"place the model in {base}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = locks.take(path, wait_s=WAIT_S)
    if fd is None:
        raise StoreError(
            f"another process has been placing this model for {WAIT_S:.0f} s", hint=f"see which one has {path} open"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # ours to remove: we have its lock
        os.close(fd)


def _place(store: Store, digest: str, part: Path, base: Path) -> Placed:
    artifact = read_content(store, digest).artifact
    with durable.disk_errors(f"place the model in {base}"):
        files = part / _FILES
        files.mkdir(parents=True)
        inside = base.is_relative_to(store.root)
        for file in artifact.files:
            if file.packing == "raw":
                _link(store, file, files, base / _FILES if inside else None)
        found = list(artifact.files) + _unpacked(store, artifact, files)
        found = [file for file in found if file.packing == "raw"]
        record = _record(artifact, found)
        if record["format"] == "gguf":
            read_header(files / record["main"])  # whatever else was packaged as a model ends here, with a reason
        durable.write_new(part / _RECORD, json.dumps(record).encode())
        durable.sync_directory(part)
        if base.exists():
            _remove(base)
        part.rename(base)
        durable.sync_directory(base.parent)
    return _from(record, digest, base)


def _link(store: Store, file: File, files: Path, final: Path | None) -> None:
    """Links `file` below `files`; relative to where that will be finally, `None` for an absolute link."""
    blob = store.layout.blob(file.descriptor.digest)
    seen = store.blob(file.descriptor.digest)
    if seen.size != file.descriptor.size:
        raise ManifestError(
            f"{file.path} has {seen.size} bytes and its manifest says {file.descriptor.size}",
            hint="its packager made a mistake, or means harm",
        )
    folder, _, name = file.path.rpartition("/")
    make_directories(files, folder)
    target = blob.absolute() if final is None else Path(os.path.relpath(blob, (final / folder) if folder else final))
    try:
        (files / folder / name).symlink_to(target)
    except FileExistsError:
        raise ManifestError(f"two files of the model have the path {file.path!r}", hint="package it again") from None


def _unpacked(store: Store, artifact: Artifact, files: Path) -> list[File]:
    """Takes every archive out into `files`; the files that were in them, told by their names."""
    found: list[File] = []
    for file in artifact.files:
        if file.packing == "raw":
            continue
        blob = store.blob(file.descriptor.digest)
        with blob.path.open("rb") as opened:
            members = unpack(Inflated(opened, file.packing, blob.size), files)
        for member in members:
            role = role_by_name(member.path)
            stated = artifact.flavour == "cncf"  # there a layer says what it holds: code and documents bring no weights
            if stated and role in ("weights", "mmproj", "adapter") and file.role not in ("weights", role):
                role = "other"
            found.append(File(role, member.path, Descriptor("", _NOWHERE, member.size)))
    return found


def _record(artifact: Artifact, files: Sequence[File]) -> dict[str, Any]:
    """What is written down of a placed model, paths relative to its files."""
    by_role: dict[str, list[str]] = {}
    settled = with_shards(list(files), artifact.flavour) if artifact.packed else list(files)
    weights = [file.path for file in settled if file.role == "weights"]
    form = artifact.format or _format(weights)
    for file in settled:
        by_role.setdefault(file.role, []).append(file.path)
    ggufs = [path for path in weights if path.lower().endswith(f".{form}")] or weights
    if not ggufs:
        raise ManifestError("no model was in the artifact's archives", hint="it was packaged without its weights")
    jinja = [file.path for file in settled if file.role == "template"]
    jinja = [] if any(OLLAMA_LAYER.fullmatch(file.descriptor.media_type) for file in settled) else jinja
    return {
        "version": VERSION,
        "format": form,
        "main": "" if form == "safetensors" else ggufs[0],
        "mmproj": next(iter(by_role.get("mmproj", [])), None),
        "adapters": by_role.get("adapter", []),
        "draft": next(iter(by_role.get("draft", [])), None),
        "template": next(iter(jinja), None),
        "files": [
            {
                "path": file.path,
                "size": file.descriptor.size,
                "digest": None if file.descriptor.digest == _NOWHERE else file.descriptor.digest,
            }
            for file in settled
        ],
    }


def _format(weights: Sequence[str]) -> str:
    return next((form for form in ("gguf", "safetensors", "dduf") if any(p.endswith(form) for p in weights)), "gguf")


def _known(store: Store, digest: str, base: Path) -> Placed | None:
    """What was placed earlier, when all of it is still there and by today's rules."""
    try:
        record = json.loads((base / _RECORD).read_bytes())
        if record["version"] != VERSION:
            return None
        for file in record["files"]:
            path = base / _FILES / file["path"]
            if file["digest"] is None:
                whole = not path.is_symlink() and path.stat().st_size == file["size"]
            else:
                blob = store.blob(file["digest"])  # an external one is compared with what it was
                whole = path.is_symlink() and path.samefile(blob.path)
            if not whole:
                return None
        return _from(record, digest, base)
    except NotInStore:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from(record: dict[str, Any], digest: str, base: Path) -> Placed:
    files = base / _FILES

    def path(value: str | None) -> Path | None:
        return None if value is None else files / value

    return Placed(
        digest,
        directory=files,
        main=files / record["main"] if record["main"] else files,
        format=record["format"],
        mmproj=path(record["mmproj"]),
        adapters=tuple(files / each for each in record["adapters"]),
        draft=path(record["draft"]),
        template=path(record["template"]),
        unpacked_bytes=sum(file["size"] for file in record["files"] if file["digest"] is None),
    )


def _remove(path: Path) -> None:
    with durable.disk_errors(f"remove {path}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
