"""Ollama's store: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<hex>`.

Source: Ollama 0.33's `manifest` and `types/model` packages; older versions wrote `blobs/sha256:<hex>`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from corral.descriptors import DOCKER_MANIFEST
from corral.models.peers.following import files_under
from corral.models.peers.manifest import manifest_model
from corral.models.peers.naming import local_ref, pulled_as
from corral.models.peers.outside import OutsideModel, Peer


def places(env: Mapping[str, str]) -> list[Path]:
    """OLLAMA_MODELS, the user's own store, and the one of the service that Ollama's installer sets up."""
    found = [Path(own)] if (own := env.get("OLLAMA_MODELS")) else []
    if home := env.get("HOME"):
        found.append(Path(home) / ".ollama" / "models")
    if sys.platform != "darwin":
        found += [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]
    return found


def read(place: Path) -> Iterator[OutsideModel]:
    """Every model that has a manifest in `place`."""
    manifests = place / "manifests"
    for path in files_under(manifests):
        parts = path.relative_to(manifests).parts
        if len(parts) == 4:
            host, namespace, name, tag = parts
            ref = pulled_as(f"{host}/{namespace}/{name}:{tag}", local_ref("ollama", parts[:3], tag))
            yield manifest_model(
                "ollama",
                ref,
                _label(host, namespace, name, tag),
                place,
                path,
                lambda digits: _blob(place, digits),
                default_type=DOCKER_MANIFEST,
            )


def _label(host: str, namespace: str, name: str, tag: str) -> str:
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _blob(place: Path, digits: str) -> Path:
    path, older = place / "blobs" / f"sha256-{digits}", place / "blobs" / f"sha256:{digits}"
    return older if not path.exists() and older.exists() else path


PEER: Final = Peer(
    "ollama",
    "Ollama",
    places,
    read,
    "Ollama deletes a model's files when it is removed there, and when it starts those that no model of its own names "
    "(OLLAMA_NOPRUNE=1 stops that)",
)
