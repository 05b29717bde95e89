"""Image manifests in a peer's store, and the blobs they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from corral.descriptors import MAX_MANIFEST_BYTES, Descriptor, decode_json, descriptor_from
from corral.errors import ManifestError
from corral.models.peers.following import followed, read_small
from corral.models.peers.outside import OutsideFile, Role

MAX_LAYERS: Final = 4096


def read_manifest(path: Path, place: Path) -> tuple[bytes, dict[str, Any]]:
    """The manifest at `path`, as it is and decoded. Raises ModelFileError or ManifestError."""
    real, _ = followed(path, place)
    data = read_small(real, MAX_MANIFEST_BYTES)
    return data, decode_json(data, str(path))


def layers_of(manifest: Mapping[str, Any]) -> tuple[Descriptor | None, list[Descriptor]]:
    """The config and the layers of an image manifest. Raises ManifestError."""
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise ManifestError("the manifest names no layers, or far too many", hint="it is damaged; pull the model again")
    config = manifest.get("config")
    return (None if config is None else descriptor_from(config)), [descriptor_from(layer) for layer in layers]


def blob_file(path: Path, place: Path, blob: Descriptor, role: Role, title: str) -> OutsideFile:
    """The file at `path` as `blob`, its size checked and its digest still only claimed."""
    real, size = followed(path, place)
    if size != blob.size:
        raise ManifestError(f"{path} has {size} bytes instead of {blob.size}", hint="pull the model again there")
    return OutsideFile(real, size, role, title, blob.media_type, blob.digest)


def kind_of(manifest: Mapping[str, Any], otherwise: str) -> str:
    """A manifest's own media type."""
    kind = manifest.get("mediaType")
    return kind if isinstance(kind, str) and 0 < len(kind) <= 255 else otherwise
