"""Small models in a store: a manifest, a config and layers of bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from corral.descriptors import MANIFEST, Descriptor
from corral.store.store import Store

CONFIG_TYPE = "application/vnd.docker.ai.model.config.v0.1+json"
LAYER_TYPE = "application/vnd.docker.ai.gguf.v3"


def manifest_of(*parts: Descriptor) -> bytes:
    """A manifest whose config is the first of `parts`."""
    config, *layers = [each.as_data() for each in parts]
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


def add_model(store: Store, *layers: bytes) -> Descriptor:
    """A model of these layers, whole and without a name."""
    config = Descriptor(CONFIG_TYPE, *store.add_bytes(json.dumps({"layers": len(layers)}).encode()))
    parts = [config, *(Descriptor(LAYER_TYPE, *store.add_bytes(layer)) for layer in layers)]
    return Descriptor(MANIFEST, *store.add_bytes(manifest_of(*parts)))


def set_model(store: Store, name: str, *layers: bytes) -> Descriptor:
    """A model of these layers, called `name`."""
    root = add_model(store, *layers)
    store.set_name(name, root)
    return root


def digests_on_disk(store: Store) -> set[str]:
    return {f"sha256:{each.name}" for each in store.layout.blobs.iterdir()}


def bytes_on_disk(directory: Path) -> int:
    """What every file under `directory` comes to, each inode once; what downloads occupy rather than their length."""
    sizes: dict[int, int] = {}
    for where, directories, files in os.walk(directory):
        for name in (*files, *(each for each in directories if Path(where, each).is_symlink())):
            seen = Path(where, name).lstat()
            partial = Path(where).name == "partial"
            sizes.setdefault(seen.st_ino, seen.st_blocks * 512 if partial else seen.st_size)
    return sum(sizes.values())
