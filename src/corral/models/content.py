"""A stored model's content: its artifact, and what its small layers say. `read_content(store, digest)`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, Final

from corral.artifact import Artifact, File, read_artifact
from corral.artifact.media import DOCKER_CONFIG_V01, DOCKER_CONFIG_V02, OLLAMA_LAYER
from corral.descriptors import decode_json, descriptor_from
from corral.errors import ManifestError, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header, read_header
from corral.store.store import Store

MAX_TEXT_BYTES: Final = 2 << 20
MAX_LICENSES: Final = 16
CONTEXT_PARAM: Final = "num_ctx"  # Ollama's name for it


@dataclass(frozen=True, slots=True)
class Content:
    """What a model brings besides its weights. Texts are whole; "" and None mean that it says nothing."""

    digest: str  # of its manifest
    artifact: Artifact
    template: str | None = field(default=None, repr=False)  # Jinja; None: the one in the weights' own header counts
    go_template: str | None = field(default=None, repr=False)  # Ollama's older kind, which no engine here reads
    system: str | None = None  # to be put before a conversation that has no system message
    messages: tuple[Mapping[str, Any], ...] = ()  # to be put before every conversation
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # defaults, in Ollama's names
    licenses: tuple[str, ...] = field(default=(), repr=False)  # whole texts

    @property
    def context_size(self) -> int | None:
        """The tokens its packager wants it served with."""
        value = self.params.get(CONTEXT_PARAM)
        return self.artifact.context_size or (value if isinstance(value, int) and value > 0 else None)


def read_content(store: Store, digest: str) -> Content:
    """The content of the model with the manifest `digest`. Blocks for reads of a few small files.

    Raises NotInStore, and ManifestError when it is no model or a layer of it is absurd.
    """
    manifest = store.manifest(digest)
    artifact = read_artifact(manifest, _config(store, manifest))
    templates = [file for file in artifact.of("template") if file.packing == "raw"]
    jinja = [file for file in templates if not OLLAMA_LAYER.fullmatch(file.descriptor.media_type)]
    go = [file for file in templates if file not in jinja]
    system = _texts(store, artifact.of("system")[:1])
    return Content(
        digest,
        artifact,
        template=next(iter(_texts(store, jinja[:1])), None),
        go_template=next(iter(_texts(store, go[:1])), None),
        system=next(iter(system), None),
        messages=_messages(store, artifact.of("messages")[:1]),
        params=_params(store, artifact.of("params")[:1]),
        licenses=_texts(store, artifact.of("license")[:MAX_LICENSES]),
    )


def read_stored_header(store: Store, artifact: Artifact) -> Header | None:
    """The header of a stored GGUF model, its files joined as `shards.read_model` does.

    None for another format, and for a model inside archives, which `unpack.place` has to take out first.
    Raises ModelFileError when the weights are no sound GGUF, NotInStore when one of them is not here.
    """
    if artifact.format != "gguf":
        return None
    files = [file for file in artifact.of("weights", "shard") if file.packing == "raw"]
    if not files:
        return None
    headers = [read_header(store.blob(file.descriptor.digest).path) for file in files]
    numbers = [header.integer("split.no") or 0 for header in headers]
    if numbers != list(range(len(headers))):
        raise ModelFileError(
            "the files of the split model are not in order, or not of one model", hint="Pull or package it again."
        )
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return replace(headers[0], tensors=tensors, file_bytes=sum(header.file_bytes for header in headers))


def _config(store: Store, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decoded config; `{}` for an artifact whose config is something else, as anybody's may be."""
    if manifest.get("config") is None:
        return {}
    descriptor = descriptor_from(manifest["config"])
    try:
        return decode_json(store.read_bytes(descriptor.digest), "the model's config")
    except ManifestError:
        if descriptor.media_type in (DOCKER_CONFIG_V01, DOCKER_CONFIG_V02):
            raise
        return {}


def _texts(store: Store, files: Sequence[File]) -> tuple[str, ...]:
    texts = []
    for file in files:
        if file.packing != "raw":
            continue
        try:
            texts.append(store.read_bytes(file.descriptor.digest, MAX_TEXT_BYTES).decode())
        except UnicodeDecodeError as error:
            raise ManifestError(
                f"the model's {file.role} is no UTF-8 text", hint="its packager made a mistake"
            ) from error
    return tuple(texts)


def _json(store: Store, files: Sequence[File]) -> Any:
    for text in _texts(store, files):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"the model's {files[0].role} are no JSON", hint="its packager made a mistake"
            ) from error
    return None


def _params(store: Store, files: Sequence[File]) -> Mapping[str, Any]:
    found = _json(store, files)
    if found is None:
        return MappingProxyType({})
    if not isinstance(found, dict) or not all(_plain(value) for value in found.values()):
        raise ManifestError("the model's params are no names with plain values", hint="its packager made a mistake")
    return MappingProxyType(found)


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, (str, int, float, bool))


def _messages(store: Store, files: Sequence[File]) -> tuple[Mapping[str, Any], ...]:
    found = _json(store, files)
    if found is None:
        return ()
    sound = isinstance(found, list) and all(
        isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str)
        for item in found
    )
    if not sound:
        raise ManifestError(
            "the model's messages are no list of roles and contents", hint="its packager made a mistake"
        )
    return tuple(found)
