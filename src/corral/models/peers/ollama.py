"""Ollama's store: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<hex>`.

Source: Ollama 0.33's `manifest` and `types/model` packages; older versions wrote `blobs/sha256:<hex>`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from corral.descriptors import DOCKER_MANIFEST, Descriptor
from corral.errors import CorralError
from corral.models.peers.following import files_under
from corral.models.peers.manifest import blob_file, kind_of, layers_of, read_manifest
from corral.models.peers.outside import OutsideFile, OutsideModel, Peer, Role, failed
from corral.refs import Ref

LAYER: Final = "application/vnd.ollama.image."
_ROLES: Final[Mapping[str, Role]] = {LAYER + "model": "weights", LAYER + "projector": "mmproj"}


def places(env: Mapping[str, str]) -> list[Path]:
    """OLLAMA_MODELS, the user's own store, and the one of the service that Ollama's installer sets up."""
    found = [Path(own)] if (own := env.get("OLLAMA_MODELS")) else []
    if home := env.get("HOME"):
        found.append(Path(home) / ".ollama" / "models")
    if sys.platform != "darwin":
        found += [
            Path("/usr/share/ollama/.ollama/models"),
            Path("/var/lib/ollama/models"),
            Path("/root/.ollama/models"),
        ]
    return found


def read(place: Path) -> Iterator[OutsideModel]:
    """Every model that has a manifest in `place`."""
    manifests = place / "manifests"
    for path in files_under(manifests):
        parts = path.relative_to(manifests).parts
        if len(parts) == 4:
            yield _model(place, path, parts)


def _model(place: Path, path: Path, parts: tuple[str, ...]) -> OutsideModel:
    host, namespace, name, tag = parts
    ref, label = ref_of(host, namespace, name, tag), _label(host, namespace, name, tag)
    try:
        manifest, data = read_manifest(path, place)
        config, layers = layers_of(data)
        files = [_file(place, layer) for layer in layers]
        if config is not None:
            files.append(_file(place, config, "config"))
        problem = "" if any(file.role == "weights" for file in files) else _why_weightless(data, files)
    except CorralError as error:
        return failed("ollama", ref, label, error.message)
    kind = kind_of(data, DOCKER_MANIFEST)
    return OutsideModel("ollama", ref, label, tuple(files), "gguf", manifest, kind, problem)


def ref_of(host: str, namespace: str, name: str, tag: str) -> Ref:
    """The reference under which Corral itself would pull what Ollama calls `host/namespace/name:tag`."""
    if host in ("hf.co", "huggingface.co"):
        return Ref("hf", "hf.co", f"{namespace}/{name}", "" if tag == "latest" else tag)
    return Ref("ollama" if host == "registry.ollama.ai" else "oci", host, f"{namespace}/{name}", tag)


def _label(host: str, namespace: str, name: str, tag: str) -> str:
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _file(place: Path, blob: Descriptor, role: Role = "other") -> OutsideFile:
    path = place / "blobs" / f"sha256-{blob.hex}"
    if not path.exists() and (old := place / "blobs" / blob.digest).exists():
        path = old
    kind = blob.media_type.partition(";")[0]
    return blob_file(path, place, blob, _ROLES.get(kind, role), kind.removeprefix(LAYER))


def _why_weightless(manifest: Mapping[str, Any], files: list[OutsideFile]) -> str:
    if any(file.media_type.startswith(LAYER + "tensor") for file in files):
        return "its weights are single tensors for Ollama's own engine; no other one reads them"
    return "it has no weights here: it runs in Ollama's cloud, or is damaged"


PEER: Final = Peer(
    "ollama",
    "Ollama",
    places,
    read,
    "Ollama deletes a model's files when it is removed there, and files that no model of its own names when it starts "
    "(OLLAMA_NOPRUNE=1 stops that)",
)
