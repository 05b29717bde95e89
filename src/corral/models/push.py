"""Sending a stored model to a registry: `push(store, name, registry, ref)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO, Final, Protocol

from corral.descriptors import Descriptor
from corral.errors import CallerError, CorralError, NotInStore
from corral.lazy_dataclass import dataclass
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.registry.oci_push import Progress, PushBlob
from corral.store.graph import is_index
from corral.store.index import Named
from corral.store.store import Store

MAX_MOUNTS: Final = 200
"""Names of the same registry that are looked through for blobs it has already."""


class Destination(Protocol):
    """What `OciRegistry` does for a push."""

    def push(
        self, ref: Ref, manifest: bytes, media_type: str, blobs: Sequence[PushBlob], progress: Progress = ...
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is in the registry now."""

    ref: Ref
    digest: str
    bytes: int  # of all blobs, those that were there before included


def push(
    store: Store,
    name: str,
    registry: Destination,
    ref: Ref,
    *,
    progress: Progress = lambda digest, done, size: None,
) -> Pushed:
    """Sends the stored model `name` to `ref`. Blobs the registry has are not sent again, not even from other
    repositories of it that the store knows. Blocks. `progress(digest, done, size)` is told of each blob.

    Raises NotInStore, CallerError when `ref` is no OCI registry's, RegistryError, NotInStore when a file that the store
    only refers to has changed.
    """
    if ref.kind != "oci":
        raise CallerError(f"{ref} is no OCI registry's reference", hint="push to one such as ghcr.io/you/model:tag")
    named = store.lookup(name)
    if named is None:
        raise NotInStore(f"no model is called {name}", hint="`corral list` shows the names there are")
    if ref.digest not in (None, named.descriptor.digest):
        raise CallerError(f"{name} is {named.descriptor.digest}, not {ref.digest}", hint="push to a tag instead")
    with store.hold(named.descriptor.digest):
        total = sum(each.size for each in store.whole(named.descriptor))
        mounts = _mounts(store, named, ref)
        digest = _push(store, named.descriptor, registry, ref, mounts, progress)
    return Pushed(ref, digest, total)


def _push(
    store: Store,
    descriptor: Descriptor,
    registry: Destination,
    ref: Ref,
    mounts: dict[str, str],
    progress: Progress,
) -> str:
    data = store.read_bytes(descriptor.digest)
    parts = store.whole(descriptor)
    blobs: list[PushBlob] = []
    if is_index(descriptor.media_type):
        # A registry takes an index only after what it names.
        for each in parts[1:]:
            if _is_manifest(each):
                _push(store, each, registry, replace(ref, tag="", digest=each.digest), mounts, progress)
    else:
        blobs = [
            PushBlob(each, _opener(store, each.digest), mounts.get(each.digest, ""))
            for each in sorted(parts[1:], key=lambda part: part.size)  # the small ones say soon that something is wrong
        ]
    return registry.push(ref, data, descriptor.media_type, blobs, progress)


def _is_manifest(descriptor: Descriptor) -> bool:
    return descriptor.media_type.endswith((".manifest.v1+json", ".manifest.v2+json"))


def _opener(store: Store, digest: str) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        return store.blob(digest).path.open("rb")

    return opened


def _mounts(store: Store, named: Named, ref: Ref) -> dict[str, str]:
    """Repositories of the same registry that have these blobs, as far as the store's names tell."""
    wanted = {each.digest for each in store.whole(named.descriptor)}
    found: dict[str, str] = {}
    others = [each for each in store.names() if each.name.startswith(f"{ref.host}/")]
    for other in others[:MAX_MOUNTS]:
        try:
            there = parse_ref(other.name)
            if there.kind != "oci" or there.host != ref.host or there.repository == ref.repository:
                continue
            for each in store.whole(other.descriptor):
                if each.digest in wanted:
                    found.setdefault(each.digest, there.repository)
        except CorralError:
            continue  # another tool's name, or a model that is not whole
    return found
