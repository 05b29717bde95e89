"""Making a manifest and its config: `build_docker` and `build_cncf`. The same input gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final, get_args

from corral.artifact import media
from corral.artifact.files import File, Role, safe_path
from corral.descriptors import MANIFEST, Descriptor, digest_of
from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model; "" and None are left out of the config."""

    format: str  # "gguf" or "safetensors"
    architecture: str = ""
    parameters: int | None = None  # how many
    quantization: str = ""
    size: int | None = None  # of the weights, in bytes
    context_size: int | None = None  # what it should be served with, not the longest it can
    name: str = ""
    licenses: tuple[str, ...] = ()  # SPDX expressions
    created: str = ""  # RFC 3339; leave it out and packaging the same files again gives the same digest
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # of the weights' own header


@dataclass(frozen=True, slots=True)
class Built:
    """A manifest and the config it names, as bytes to be stored or pushed."""

    manifest: bytes = field(repr=False)
    config: bytes = field(repr=False)
    config_type: str
    manifest_type: str = MANIFEST

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.manifest_type, digest_of(self.manifest), len(self.manifest))

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def config_descriptor(self) -> Descriptor:
        return Descriptor(self.config_type, digest_of(self.config), len(self.config))


_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_ORDER: Final[dict[str, int]] = {role: at for at, role in enumerate(get_args(Role))}
_DOCKER_TYPES: Final = {
    "mmproj": media.DOCKER_MMPROJ,
    "adapter": media.DOCKER_LORA,
    "template": media.DOCKER_TEMPLATE,
    "license": media.DOCKER_LICENSE,
}
_CNCF_KINDS: Final = {"weights": "weight", "shard": "weight", "mmproj": "weight", "adapter": "weight",
                      "draft": "weight", "license": "doc", "other": "doc"}  # fmt: skip
_UNSAID_IN_CNCF: Final = ("mmproj", "adapter", "draft", "template", "params", "system", "messages")


def build_docker(files: Sequence[File], facts: Facts, annotations: Mapping[str, str] = _NONE) -> Built:
    """Docker's format, one uncompressed file a layer: config v0.1 for GGUF files in one folder, v0.2 for trees.

    `annotations` are the manifest's.

    Raises ManifestError for packed files, unsafe paths, or no weights.
    """
    ordered = _ordered(files)
    types = [_docker_type(file, facts) for file in ordered]
    nested = facts.format != "gguf" or media.DOCKER_FILE in types or any("/" in file.path for file in ordered)
    kind = media.DOCKER_CONFIG_V02 if nested else media.DOCKER_CONFIG_V01
    layers = [
        _layer(file, layer_type, said=layer_type != media.DOCKER_FILE or file.role in ("config", "other"))
        for file, layer_type in zip(ordered, types, strict=True)
    ]
    inner = {
        "format": facts.format,
        "quantization": facts.quantization,
        "parameters": _count(facts.parameters, spaced=True, digits=2),
        "architecture": facts.architecture,
        "size": _size(facts.size),
        facts.format: {key: facts.metadata[key] for key in sorted(facts.metadata)},
        "context_size": facts.context_size,
    }
    config = {
        "config": _said(inner),
        "descriptor": _said({"created": facts.created}),
        "rootfs": {"type": "rootfs", "diff_ids": [layer["digest"] for layer in layers]},
    }
    return _built(config, kind, layers, {"annotations": dict(sorted(annotations.items()))} if annotations else {})


def build_cncf(files: Sequence[File], facts: Facts) -> Built:
    """The CNCF's ModelPack format, one raw file a layer.

    Raises ManifestError for packed files, unsafe paths, or no weights.
    """
    layers = []
    for file in _ordered(files):
        kind = _CNCF_KINDS.get(file.role, "weight.config")
        layers.append(_layer(file, f"application/vnd.cncf.model.{kind}.v1.raw", said=file.role not in _UNSAID_IN_CNCF))
    able = set(facts.capabilities)
    capabilities = {
        "inputTypes": ["text", *(["image"] if "vision" in able else [])],
        "outputTypes": ["embedding" if "embedding" in able else "text"],
        "reasoning": True if "thinking" in able else None,
        "toolUsage": True if "tools" in able else None,
    }
    config = {
        "descriptor": _said({"createdAt": facts.created, "name": facts.name, "licenses": list(facts.licenses)}),
        "config": _said(
            {
                "architecture": facts.architecture,
                "format": facts.format,
                "paramSize": _count(facts.parameters, spaced=False, digits=1),
                "quantization": facts.quantization,
                "capabilities": _said(capabilities) if able else None,
            }
        ),
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }
    extra: dict[str, Any] = {}
    if facts.context_size:
        extra["annotations"] = {media.CONTEXT_SIZE: str(facts.context_size)}
    return _built(config, media.CNCF_CONFIG, layers, extra, artifact_type=media.CNCF_ARTIFACT)


def _ordered(files: Sequence[File]) -> list[File]:
    """`files` in the one order that does not depend on how they were found: by role, then path."""
    if any(file.packing != "raw" for file in files):
        raise ManifestError(
            "packed files cannot be packaged again as they are", hint="place the model, then package it"
        )
    if not any(file.role == "weights" for file in files):
        raise ManifestError("there is no model among the files", hint="give it at least one .gguf or .safetensors file")
    for file in files:
        safe_path(file.path)
    if len({file.path for file in files}) != len(files):
        raise ManifestError("two of the files have the same path", hint="rename one of them")
    return sorted(files, key=lambda file: (_ORDER[file.role], file.path))


def _docker_type(file: File, facts: Facts) -> str:
    if file.role in ("weights", "shard"):
        return media.DOCKER_GGUF if facts.format == "gguf" else media.DOCKER_SAFETENSORS
    return _DOCKER_TYPES.get(file.role, media.DOCKER_FILE)


def _layer(file: File, media_type: str, *, said: bool) -> dict[str, Any]:
    """`said` is whether a reader knows the file's role from its media type."""
    notes = {media.FILEPATH: file.path, media.OCI_TITLE: file.path}  # the second is what oras names files by
    if not said:
        notes[media.ROLE] = file.role
    return Descriptor(media_type, file.descriptor.digest, file.descriptor.size, notes).as_data()


def _built(
    config: Mapping[str, Any],
    kind: str,
    layers: list[dict[str, Any]],
    extra: Mapping[str, Any],
    artifact_type: str = "",
) -> Built:
    body = _encoded(config)
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    if artifact_type:
        manifest["artifactType"] = artifact_type
    manifest["config"] = Descriptor(kind, digest_of(body), len(body)).as_data()
    manifest["layers"] = layers
    return Built(_encoded({**manifest, **extra}), body, kind)


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value not in ("", None, [], {})}


def _count(count: int | None, *, spaced: bool, digits: int) -> str:
    """A count of parameters as people write it: `361.82 M`, `6.7B`."""
    if not count:
        return ""
    size, letter = float(count), ""
    for step in ("K", "M", "B", "T"):
        if size < 1000:
            break
        size, letter = size / 1000, step
    text = f"{size:.{digits}f}".rstrip("0").rstrip(".") if letter else str(count)
    return f"{text} {letter}".rstrip() if spaced else f"{text}{letter}"


def _size(size: int | None) -> str:
    """Bytes as Docker's configs have them: decimal units, two digits."""
    if size is None:
        return ""
    amount, unit = float(size), "B"
    for step in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, step
    return f"{amount:.2f} {unit}" if unit != "B" else f"{size} B"
