"""Changing names: pointing them to whole models, removing them, going back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType

from corral import clock
from corral.descriptors import Descriptor
from corral.errors import DiskFull, InUse, NotInStore
from corral.lazy_dataclass import dataclass
from corral.store import reserve
from corral.store.blobs import Blobs
from corral.store.graph import Graph
from corral.store.history import REMOVED, History, Past
from corral.store.holds import is_held
from corral.store.index import Index, Named, check_name, entry_of, name_in
from corral.store.locks import StoreLock


@dataclass(frozen=True, slots=True)
class Naming:
    """One name to be set."""

    name: str
    descriptor: Descriptor
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Names:
    """The changes of the index. Thread-safe, and safe beside other processes."""

    def __init__(self, blobs: Blobs, graph: Graph, index: Index, history: History, lock: StoreLock) -> None:
        self._blobs = blobs
        self._graph = graph
        self._index = index
        self._history = history
        self._lock = lock

    def set(self, namings: Sequence[Naming], why: str) -> None:
        """Points each name to its model in one step; a name that points there already keeps its time.

        Raises NotInStore or ManifestError, nothing changed, when a model is not whole.
        """
        wanted = {}
        for each in namings:
            descriptor = replace(each.descriptor, annotations={**each.descriptor.annotations, **each.annotations})
            wanted[check_name(each.name)] = descriptor
        self._sizes(wanted)  # reads manifests before the lock is held
        with self._lock.exclusive():
            view = self._index.read()
            sizes = self._sizes(wanted)
            new, changes = {}, []
            for name, descriptor in wanted.items():
                now = view.named.get(name)
                same = now is not None and now.descriptor.digest == descriptor.digest
                at = now.at_wall_s if now is not None and same and now.at_wall_s else clock.wall()
                if not same:
                    changes.append((name, Past(descriptor.digest, at, why, descriptor)))
                new[name] = entry_of(name, descriptor, at, sizes[descriptor.digest])
            entries = [entry for entry in view.document.get("manifests", []) if name_in(entry) not in new]
            entries += new.values()
            if changes:
                self._history.add(changes)
            if entries != view.document.get("manifests"):
                self._index.write(view, entries)

    def _sizes(self, wanted: Mapping[str, Descriptor]) -> dict[str, int]:
        """What each model comes to, by digest. Raises when one is not whole."""
        models = {(each.digest, each.size): each for each in wanted.values()}
        return {each.digest: sum(part.size for part in self._graph.whole(each).values()) for each in models.values()}

    def remove(self, name: str) -> Named:
        """Takes the name away and gives what it was; its blobs stay until they are collected.

        Works on a full disk too. Raises NotInStore; InUse when the model is held and has no other name.
        """
        try:
            return self._remove(name)
        except DiskFull:
            if not reserve.spend(self._blobs.layout):
                raise
            return self._remove(name)

    def _remove(self, name: str) -> Named:
        with self._lock.exclusive():
            view = self._index.read()
            named = view.named.get(name)
            if named is None:
                raise NotInStore(f"no model is called {name}", hint="`corral list` shows the names there are")
            digest = named.descriptor.digest
            others = any(each.descriptor.digest == digest for each in view.named.values() if each.name != name)
            if not others and is_held(self._blobs, digest):
                raise InUse(
                    f"{name} is in use", hint="stop it (`corral stop`), or wait for its push or pull", digest=digest
                )
            self._history.add([(name, Past(digest, clock.wall(), REMOVED, named.descriptor))])
            self._index.write(view, [each for each in view.document["manifests"] if name_in(each) != name])
            return named

    def past(self, name: str) -> list[Past]:
        """What the name pointed to, newest first. Raises NotInStore when there never was such a name."""
        found = self._history.of(name)[::-1]
        named = self._index.read().named.get(name)
        if named is not None and (not found or found[0].digest != named.descriptor.digest or found[0].why == REMOVED):
            # Another tool set it, or Corral was killed between writing the history and the index.
            found.insert(0, Past(named.descriptor.digest, named.at_wall_s, "set", named.descriptor))
        if not found:
            raise NotInStore(f"no model is or was called {name}", hint="`corral list` shows the names there are")
        return found

    def back(self, name: str, digest: str | None) -> Past:
        """Points the name to `digest`, or to what it was before; going back twice ends where it began.

        Raises NotInStore when there is nothing to go back to, or its blobs have been collected.
        """
        past = self.past(name)
        now = self._index.read().named.get(name)
        current = None if now is None else now.descriptor.digest
        matching = [each for each in past if each.digest == digest or (digest is None and each.digest != current)]
        if not matching:
            raise NotInStore(
                f"{name} was never {digest}" if digest else f"{name} has nothing to go back to",
                hint=f"`corral history {name}` shows what it was",
            )
        target = matching[0]
        try:
            self.set([Naming(name, target.descriptor)], "rollback")
        except NotInStore as error:
            raise NotInStore(
                f"{name} cannot go back to {target.digest}: {error.message}",
                hint=f"fetch it again: corral pull {name}@{target.digest}",
                digest=target.digest,
            ) from error
        return target
