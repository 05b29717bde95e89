"""Docker Model Runner's store: `models.json`, `manifests/sha256/<hex>` and `blobs/sha256/<hex>`.

Source: docker/model-runner `pkg/distribution/internal/store`, layout version 1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from corral.descriptors import MANIFEST, check_digest
from corral.errors import CorralError
from corral.models.peers.manifest import manifest_model, read_json
from corral.models.peers.naming import local_ref, pulled_as
from corral.models.peers.outside import OutsideModel, Peer
from corral.refs import Ref


def places(env: Mapping[str, str]) -> list[Path]:
    """MODELS_PATH alone, else the user's own store and the volume of the container that Docker Engine runs."""
    if own := env.get("MODELS_PATH"):
        return [Path(own)]
    found = [Path(home) / ".docker" / "models"] if (home := env.get("HOME")) else []
    return [*found, Path("/var/lib/docker/volumes/docker-model-runner-models/_data")]


def read(place: Path) -> Iterator[OutsideModel]:
    """Every model of `place`'s index, once for each of its tags. Raises ModelFileError or ManifestError."""
    if not (place / "models.json").exists():
        return
    _, index = read_json(place / "models.json", place)
    models = index.get("models")
    for entry in models if isinstance(models, list) else []:
        if isinstance(entry, dict):
            yield from _models(place, entry.get("id"), entry.get("tags"))


def _models(place: Path, identity: Any, tags: Any) -> Iterator[OutsideModel]:
    try:
        digest = check_digest(identity)
    except CorralError:
        return
    digits = digest.removeprefix("sha256:")
    for label, ref in named(digits, tags):
        yield manifest_model(
            "docker",
            ref,
            label,
            place,
            place / "manifests" / "sha256" / digits,
            lambda each: place / "blobs" / "sha256" / each,
            default_type=MANIFEST,
            digest=digest,
        )


def named(digits: str, tags: Any) -> list[tuple[str, Ref]]:
    """`(label, reference)` for each of a model's tags; one by its digest when it has none."""
    short = digits[:12]
    otherwise = local_ref("docker", [short])
    known = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return [(tag, pulled_as(tag, otherwise)) for tag in known] or [(short, otherwise)]


PEER: Final = Peer(
    "docker",
    "Docker Model Runner",
    places,
    read,
    "Docker deletes a model's files when it is removed there (`docker model rm`, `docker model purge`)",
)
