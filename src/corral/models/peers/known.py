"""The peers whose models can be imported, by the name that `corral import` takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from corral.errors import NotFound
from corral.models.peers import docker, huggingface, llamacpp, lmstudio, ollama
from corral.models.peers.outside import Peer

PEERS: Final[Mapping[str, Peer]] = {
    peer.key: peer for peer in (ollama.PEER, docker.PEER, huggingface.PEER, lmstudio.PEER, llamacpp.PEER)
}


def find_peer(key: str) -> Peer:
    """Raises NotFound."""
    peer = PEERS.get(key)
    if peer is None:
        raise NotFound(f"there is no importing from {key!r}", hint=f"known are: {', '.join(PEERS)}")
    return peer


def existing_places(peer: Peer, env: Mapping[str, str] | None = None) -> list[Path]:
    """The directories that are there, each once, best first."""
    found: dict[Path, Path] = {}
    for place in peer.places(os.environ if env is None else env):
        try:
            if place.is_dir():
                found.setdefault(place.resolve(), place)
        except OSError:  # a parent that this user may not look into
            continue
    return list(found.values())
