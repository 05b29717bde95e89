"""Docker Model Runner's store: `models.json`, `manifests/sha256/<hex>` and `blobs/sha256/<hex>`.

Source: docker/model-runner `pkg/distribution/internal/store`, layout version 1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from corral.descriptors import MANIFEST, Descriptor, check_digest, digest_of
from corral.errors import CorralError, ManifestError
from corral.models.peers.manifest import blob_file, kind_of, layers_of, read_manifest
from corral.models.peers.outside import Format, OutsideFile, OutsideModel, Peer, Role, failed
from corral.refs import Ref

_HOST = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?", re.IGNORECASE)


def places(env: Mapping[str, str]) -> list[Path]:
    """MODELS_PATH, the user's own store, and the volume of the container that Docker Engine runs."""
    found = [Path(own)] if (own := env.get("MODELS_PATH")) else []
    if home := env.get("HOME"):
        found.append(Path(home) / ".docker" / "models")
    found.append(Path("/var/lib/docker/volumes/docker-model-runner-models/_data"))
    return found


def read(place: Path) -> Iterator[OutsideModel]:
    """Every model of `place`'s index, once for each of its tags. Raises ModelFileError or ManifestError."""
    if not (place / "models.json").exists():
        return
    _, index = read_manifest(place / "models.json", place)
    models = index.get("models")
    for entry in models if isinstance(models, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            yield from _models(place, entry["id"], entry.get("tags"))


def _models(place: Path, digest: str, tags: Any) -> Iterator[OutsideModel]:
    named = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    refs = [(tag, ref) for tag in named if (ref := ref_of(tag)) is not None]
    if not refs:
        short = digest.removeprefix("sha256:")[:12]
        refs = [(short, Ref("oci", "localhost", f"docker/{short}", "latest"))]
    for tag, ref in refs:
        yield _model(place, digest, tag, ref)


def ref_of(tag: str) -> Ref | None:
    """What Docker Model Runner calls `tag`, in full; None when it is no reference. No slash means `ai/`."""
    name, _, version = tag.rpartition(":")
    if not name or "/" in version:
        name, version = tag, "latest"
    name = name.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("registry-1.docker.io/")
    parts = name.split("/")
    if not all(parts) or ".." in parts or any(not part.isprintable() for part in parts):
        return None
    if parts[0] in ("huggingface.co", "hf.co") and len(parts) >= 3:
        return Ref("hf", "hf.co", "/".join(parts[1:]), "" if version == "latest" else version.upper())
    if len(parts) == 1:
        return Ref("oci", "docker.io", f"ai/{name}", version)
    if _HOST.fullmatch(parts[0]) and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        return Ref("oci", parts[0], "/".join(parts[1:]), version)
    return Ref("oci", "docker.io", name, version)


def _model(place: Path, digest: str, tag: str, ref: Ref) -> OutsideModel:
    try:
        hexed = check_digest(digest).removeprefix("sha256:")
        path = place / "manifests" / "sha256" / hexed
        manifest, data = read_manifest(path, place)
        if digest_of(manifest) != digest:
            raise ManifestError(f"{path} is not what its name says", hint="pull the model again in Docker")
        config, layers = layers_of(data)
        files = [_file(place, layer) for layer in layers]
        if config is not None:
            files.append(_file(place, config, "config"))
    except CorralError as error:
        return failed("docker", ref, tag, error.message)
    kinds = {file.media_type for file in files if file.role == "weights"}
    names = " ".join([*kinds, *(file.title for file in files if file.role == "weights")])
    form: Format = "safetensors" if "safetensors" in names else "gguf" if kinds else ""
    problem = "" if kinds else "it holds no weights that Corral knows"
    return OutsideModel("docker", ref, tag, tuple(files), form, manifest, kind_of(data, MANIFEST), problem)


def _file(place: Path, blob: Descriptor, role: Role = "other") -> OutsideFile:
    path = place / "blobs" / "sha256" / blob.hex
    return blob_file(path, place, blob, _role(blob) or role, _title(blob))


def _role(blob: Descriptor) -> Role | None:
    kind, title = blob.media_type, blob.annotations.get("org.cncf.model.filepath", "").lower()
    if "mmproj" in kind or "mmproj" in title:
        return "mmproj"
    if kind in _WEIGHTS or kind.startswith("application/vnd.cncf.model.weight.v1."):
        return "weights"
    return "weights" if title.endswith((".gguf", ".safetensors")) else None


def _title(blob: Descriptor) -> str:
    return blob.annotations.get("org.cncf.model.filepath") or blob.media_type.rpartition(".ai.")[2]


_WEIGHTS: Final = frozenset({"application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.safetensors"})

PEER: Final = Peer(
    "docker",
    "Docker Model Runner",
    places,
    read,
    "Docker deletes a model's files when it is removed there (`docker model rm`, `docker model purge`)",
)
