"""What the tests of fetching share: a store, a registry with faults, and a source that goes to it as Corral does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from corral.models.fetching.fetch import Fetching
from corral.models.fetching.retry import Retry
from corral.refs import Ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.source import RemoteBlob, RemoteModel
from corral.store.store import Store
from support.faulty_registry import FaultyRegistry, serving

CHUNK = 64 << 10
QUICK = Fetching(connections=3, chunk_bytes=CHUNK, retry=Retry(first_s=0.001, most_s=0.01))


@dataclass
class World:
    """A store, a registry, and the way from one to the other."""

    registry: FaultyRegistry
    store: Store
    source: OciRegistry

    def ref(self, name: str, tag: str = "latest") -> Ref:
        return Ref("oci", self.registry.host, name, tag)

    def resolve(self, name: str) -> RemoteModel:
        return self.source.resolve(self.ref(name))

    def blob(self, content: bytes) -> RemoteBlob:
        """The one layer of a model of this content."""
        self.registry.model("ai/one", content)
        return self.resolve("ai/one").blobs[-1]

    def nameless(self, blob: RemoteBlob, etag: str | None = None, size: int | None = None) -> RemoteBlob:
        """The blob as a plain URL offers it: without a digest."""
        return replace(blob, digest=None, etag=etag, size=size)


@contextmanager
def world(place: Path, stall_s: float = 0.3) -> Iterator[World]:
    store = Store(place / "models")
    store.prepare()
    with serving() as registry, Egress(EgressPolicy(stall_s=stall_s), env={}) as egress:
        yield World(registry, store, OciRegistry(egress, Auth(egress, None, env={})))
