"""Making a stored GGUF model of a Hugging Face model: `convert(store, base, …)`. Blocks."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Final

import corral
from corral.artifact import File, build_docker
from corral.artifact.lineage import Lineage
from corral.descriptors import Descriptor
from corral.errors import CallerError
from corral.models.content import read_content
from corral.models.formats.gguf import read_header
from corral.models.formats.safetensors import SafetensorsModel, read_alone, read_directory
from corral.models.making.hf_gguf import Conversion, Say
from corral.models.making.package import gguf_facts, store_built
from corral.models.making.quantize import Base, Quantized, file_digest
from corral.models.unpack import place
from corral.store.store import Store

_HEAD_BYTES: Final = 64 << 20
"""More than a vocabulary takes."""
_KEPT: Final = ("license", "template", "params", "system", "messages")
_LICENSES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")


def convert(store: Store, base: Base, name: str, to: str, say: Say) -> Quantized:
    """Names a GGUF model with the weights of `base`, a safetensors model, `name`. As `quantize`, nothing of it can be
    seen until the last step.

    Raises CallerError, ModelFileError, EngineMissing, NotInStore, DiskFull.
    """
    with contextlib.ExitStack() as held:
        model, others = _source(store, base, held)
        say("reading the model", 0, None)
        conversion = Conversion(model, to)
        store.require_room(conversion.bytes + _HEAD_BYTES)
        target = held.enter_context(store.spool()) / "model.gguf"
        title = base.name.rpartition("/")[2].partition(":")[0]
        conversion.write(target, title, say)
        say("storing the new model", 0, None)
        made = read_header(target)
        lineage = Lineage("converted", to, _tool(), base.name, base.digest or "", _digest(base, model))
        added = store.add_file(target, how="move")
        held.enter_context(store.hold(added.digest))
        weights = File("weights", f"{_safe(title)}-{to}.gguf", Descriptor("", added.digest, added.size))
        others = others or _licenses(store, model.directory, held)
        built = build_docker([weights, *others], gguf_facts(made, seeing=False), lineage.annotations())
        store_built(store, built, name, why="convert")
    return Quantized(built.digest, model.shape.file_bytes, made.file_bytes)


def _source(store: Store, base: Base, held: contextlib.ExitStack) -> tuple[SafetensorsModel, list[File]]:
    if base.digest is None:
        assert base.file is not None
        return (read_directory if base.file.is_dir() else read_alone)(base.file), []
    held.enter_context(store.hold(base.digest))
    artifact = read_content(store, base.digest).artifact
    if artifact.format != "safetensors":
        raise CallerError(
            f"{base.name} is no safetensors model but {artifact.format or 'something else'}",
            hint=f"corral quantize {base.name} --to TYPE makes a GGUF model smaller",
        )
    return read_directory(place(store, base.digest).directory), [
        file for file in artifact.files if file.role in _KEPT and file.packing == "raw"
    ]


def _licenses(store: Store, directory: Path, held: contextlib.ExitStack) -> list[File]:
    """The licence that lies beside a folder's weights."""
    for each in _LICENSES:
        if (path := directory / each).is_file():
            added = store.add_file(path, how="copy")
            held.enter_context(store.hold(added.digest))
            return [File("license", "LICENSE", Descriptor("", added.digest, added.size))]
    return []


def _digest(base: Base, model: SafetensorsModel) -> str:
    """Of a folder of no store: one digest of its weight files' own, as `sha256sum` lists them."""
    if base.digest is not None:
        return ""
    lines = [f"{file_digest(each, lambda: None)[7:]}  {each.name}\n" for each in sorted(model.files)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _tool() -> str:
    return f"corral {corral.__version__} with gguf {importlib.metadata.version('gguf')}"


def _safe(text: str) -> str:
    return "".join(each if each.isalnum() or each in "._-" else "-" for each in text).strip(".-") or "model"
