"""What belongs to a model: the blobs that can be reached from its manifest."""

from __future__ import annotations

from collections.abc import Iterable

from corral.descriptors import DOCKER_INDEX, INDEX, MAX_MANIFEST_BYTES, Descriptor, descriptor_from
from corral.errors import CorralError, ManifestError
from corral.lazy_dataclass import dataclass
from corral.store.blobs import Blobs

MAX_DEPTH = 4
"""Indexes in indexes. A cycle cannot be made of digests, but a long chain can."""
_MAX_CACHED = 50_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What a manifest names: all of `needed`; of an index's `choices`, those that were fetched."""

    needed: tuple[Descriptor, ...] = ()
    choices: tuple[Descriptor, ...] = ()


class Graph:
    """Follows manifests. Thread-safe; what a digest's content names never changes, so it is read once."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._cache: dict[str, Parts] = {}

    def parts(self, digest: str) -> Parts:
        """What the manifest `digest` names. Raises NotInStore, ManifestError, DigestMismatch."""
        found = self._cache.get(digest)
        if found is None:
            found = _parts(self._blobs.read_json(digest), digest)
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[digest] = found
        return found

    def whole(self, root: Descriptor) -> dict[str, Descriptor]:
        """Every blob of the model `root`, itself first, by digest.

        Raises NotInStore when one is missing, ManifestError when one has another size than its manifest says.
        """
        found = self.reach(root)
        for each in found.values():
            blob = self._blobs.get(each.digest)
            if blob.size != each.size:
                raise ManifestError(
                    f"{each.digest} has {blob.size} bytes and its manifest says {each.size}",
                    hint="the manifest or the store's file is damaged; `corral verify` says which",
                )
        return found

    def reach(self, root: Descriptor) -> dict[str, Descriptor]:
        """Every blob that `root` needs, itself first, by digest, whether it is here or not. Raises as `parts` does."""
        found: dict[str, Descriptor] = {}
        level = [root]
        for _ in range(MAX_DEPTH):
            following: list[Descriptor] = []
            for each in level:
                if each.digest in found:
                    continue
                found[each.digest] = each
                parts = self.parts(each.digest)
                for part in parts.needed:
                    found.setdefault(part.digest, part)
                following += [choice for choice in parts.choices if self._blobs.find(choice.digest) is not None]
            if not following:
                return found
            level = following
        raise ManifestError(f"{root.digest} nests indexes too deep", hint=f"{MAX_DEPTH} levels are allowed")

    def guess(self, digests: Iterable[str]) -> set[str]:
        """`digests` and what can be reached from those of them that are manifests. Never raises."""
        found = set(digests)
        for digest in list(found):
            blob = self._blobs.find(digest)
            if blob is not None and blob.size <= MAX_MANIFEST_BYTES:
                try:
                    found.update(self.reach(Descriptor("", digest, blob.size)))
                except CorralError:
                    continue  # a config, a template, or nothing that names others
        return found


def is_index(media_type: str) -> bool:
    return media_type in (INDEX, DOCKER_INDEX)


def _parts(data: dict[str, object], digest: str) -> Parts:
    needed, choices = [], []
    if "config" in data:
        needed.append(descriptor_from(data["config"]))
    for key in ("layers", "blobs"):
        needed += [descriptor_from(each) for each in _list(data, key, digest)]
    choices += [descriptor_from(each) for each in _list(data, "manifests", digest)]
    if not needed and not choices and "layers" not in data and "manifests" not in data:
        raise ManifestError(f"{digest} is no manifest", hint="a manifest has a config and layers, an index manifests")
    return Parts(tuple(needed), tuple(choices))


def _list(data: dict[str, object], key: str, digest: str) -> list[object]:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise ManifestError(f"{digest} has {key} that are no list", hint="the manifest is damaged")
    return value
