"""Models that a peer keeps as an image manifest and the blobs it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from corral.artifact import read_artifact
from corral.descriptors import MAX_MANIFEST_BYTES, Descriptor, decode_json, descriptor_from, digest_of
from corral.errors import CorralError, ManifestError
from corral.models.peers.following import followed, read_small
from corral.models.peers.outside import OutsideFile, OutsideModel, failed
from corral.refs import Ref


def read_json(path: Path, place: Path) -> tuple[bytes, dict[str, Any]]:
    """The bounded JSON file at `path`, as it is and decoded. Raises ModelFileError or ManifestError."""
    real, _ = followed(path, place)
    data = read_small(real, MAX_MANIFEST_BYTES)
    return data, decode_json(data, str(path))


def manifest_model(
    holder: str,
    ref: Ref,
    label: str,
    place: Path,
    path: Path,
    blob: Callable[[str], Path],
    *,
    default_type: str,
    digest: str | None = None,
) -> OutsideModel:
    """The model whose manifest is at `path`, and should be `digest` if that is given. `blob(hex)` is where one lies.

    Sizes are checked here and digests when it is imported.
    """
    try:
        manifest, data = read_json(path, place)
        if digest not in (None, digest_of(manifest)):
            raise ManifestError(f"{path} is not what its name says", hint="pull the model again there")
        config: dict[str, Any] = {}
        files: list[OutsideFile] = []
        if data.get("config") is not None:
            files.append(_file(place, blob, descriptor_from(data["config"]), "config"))
            config = _config(files[0].path)
        artifact = read_artifact(data, config)
        files[:0] = [_file(place, blob, file.descriptor, file.path, file.role) for file in artifact.files]
    except CorralError as error:
        return failed(holder, ref, label, error.message)
    kind = data.get("mediaType")
    kind = kind if isinstance(kind, str) and 0 < len(kind) <= 255 else default_type
    return OutsideModel(holder, ref, label, tuple(files), artifact.format, manifest, kind)


def _config(path: Path) -> dict[str, Any]:
    try:
        return decode_json(read_small(path, MAX_MANIFEST_BYTES), str(path))
    except ManifestError:  # some artifacts have a config that is no JSON
        return {}


def _file(
    place: Path, blob: Callable[[str], Path], descriptor: Descriptor, title: str, role: Any = "config"
) -> OutsideFile:
    path = blob(descriptor.hex)
    real, size = followed(path, place)
    if size != descriptor.size:
        raise ManifestError(f"{path} has {size} bytes instead of {descriptor.size}", hint="pull the model again there")
    return OutsideFile(real, size, role, title, descriptor.media_type, descriptor.digest)
