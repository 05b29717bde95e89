"""Stores as other tools lay them out on disk, with models of a test's making."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corral.descriptors import DOCKER_MANIFEST, MANIFEST, digest_of

OLLAMA = "application/vnd.ollama.image."
COMMIT = "c" * 40


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def write_ollama(
    place: Path,
    layers: Sequence[tuple[str, bytes]],
    *,
    name: str = "registry.ollama.ai/library/tiny/latest",
    config: Mapping[str, Any] | None = None,
) -> str:
    """A model in Ollama's store at `place`; `layers` are kinds, such as "model", with contents. Its digest."""
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    settings = json.dumps(config or {"model_format": "gguf", "model_family": "llama", "file_type": "F16"}).encode()
    for content in [settings, *(content for _, content in layers)]:
        (place / "blobs" / digest_of(content).replace(":", "-")).write_bytes(content)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _described("application/vnd.docker.container.image.v1+json", settings),
            "layers": [_described(OLLAMA + kind, content) for kind, content in layers],
        }
    ).encode()
    path = place / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest)
    return digest_of(manifest)


def docker_model(gguf: bytes, *, extra: Sequence[tuple[str, bytes]] = ()) -> tuple[bytes, dict[str, bytes]]:
    """A manifest as Docker Model Runner makes it, and every blob by its digest."""
    layers = [("application/vnd.docker.ai.gguf.v3", gguf), *extra]
    config = json.dumps(
        {
            "config": {"format": "gguf", "quantization": "F16", "architecture": "llama"},
            "descriptor": {},
            "rootfs": {"type": "rootfs", "diff_ids": [digest_of(content) for _, content in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _described("application/vnd.docker.ai.model.config.v0.1+json", config),
            "layers": [_described(kind, content) for kind, content in layers],
        }
    ).encode()
    return manifest, {digest_of(content): content for content in [config, *(content for _, content in layers)]}


def write_docker(place: Path, models: Mapping[bytes, Sequence[str]]) -> list[str]:
    """Docker Model Runner's store with a model of each GGUF content under its tags; the models' digests."""
    entries: list[dict[str, Any]] = []
    for gguf, tags in models.items():
        manifest, blobs = docker_model(gguf)
        for folder, contents in (("manifests", [manifest]), ("blobs", list(blobs.values()))):
            (place / folder / "sha256").mkdir(parents=True, exist_ok=True)
            for content in contents:
                (place / folder / "sha256" / digest_of(content)[7:]).write_bytes(content)
        entries.append({"id": digest_of(manifest), "tags": list(tags), "files": list(blobs)})
    (place / "layout.json").write_text('{"version":"1.0.0"}')
    (place / "models.json").write_text(json.dumps({"models": entries}))
    return [entry["id"] for entry in entries]


def write_hub(
    place: Path, repository: str, files: Mapping[str, bytes], *, commit: str = COMMIT, main: bool = True
) -> Path:
    """A snapshot of `repository` in a Hugging Face cache at `place`, large and small files named as the cache does."""
    folder = place / ("models--" + repository.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        large = name.endswith((".gguf", ".safetensors"))
        oid = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        (folder / "blobs" / oid).write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../" * (len(Path(name).parts) + 1) + f"blobs/{oid}")
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return snapshot
