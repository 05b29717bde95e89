"""Checking that the store still holds what it says: every byte read and hashed again."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from corral.descriptors import Descriptor
from corral.errors import CorralError, NotInStore
from corral.lazy_dataclass import dataclass
from corral.store import origins
from corral.store.blobs import Blobs, hash_file
from corral.store.graph import Graph
from corral.store.index import Index
from corral.store.layout import digest_named

_MAX_MANIFESTS = 100_000
Kind = Literal["missing", "changed", "damaged", "unreadable", "manifest"]


@dataclass(frozen=True, slots=True)
class Damage:
    """One blob that is not what its digest says.

    missing: not here; changed: its file outside the store is gone or another; damaged: other bytes than its digest
    says; unreadable: the disk does not give it; manifest: it is what its digest says, and no manifest.
    """

    kind: Kind
    digest: str
    size: int | None  # that it should have
    names: tuple[str, ...]  # that need it; none when nothing does
    path: Path
    what: str  # in a sentence
    repaired: bool = False


Repair = Callable[[Damage], bool]
"""Fetches the blob again and puts it into the store, says whether it did. The bad file is out of the way meanwhile."""

Progress = Callable[[int, int], None]
"""Bytes done and bytes in all."""


class Verifier:
    """Verifies one store. Damage that is not repaired is left as it is."""

    def __init__(self, blobs: Blobs, graph: Graph, index: Index) -> None:
        self._blobs = blobs
        self._graph = graph
        self._index = index

    def verify(self, names: Iterable[str] | None, repair: Repair | None, progress: Progress | None) -> list[Damage]:
        """Checks the models of `names`, or every blob there is. Raises NotInStore when there is no such name."""
        run = _Run(self._blobs, self._graph, repair)
        for root, users in self._roots(names):
            run.manifests(root, users)
        if names is None:
            for file in self._blobs.layout.blobs.iterdir():
                if (digest := digest_named(file.name)) is not None:
                    run.leaves.setdefault(digest, _Leaf(None, set()))
        run.check_leaves(progress or (lambda done, total: None))
        return [each for each in map(self._still, run.found) if each is not None]

    def _still(self, damage: Damage) -> Damage | None:
        """`damage`, unless it is only that its model was removed meanwhile."""
        if damage.kind != "missing" or damage.repaired:
            return damage
        named = self._index.read().named
        names = tuple(name for name in damage.names if name in named and self._needs(named[name].descriptor, damage))
        return replace(damage, names=names) if names else None

    def _needs(self, root: Descriptor, damage: Damage) -> bool:
        try:
            return damage.digest in self._graph.reach(root)
        except CorralError:
            return True

    def _roots(self, names: Iterable[str] | None) -> list[tuple[Descriptor, set[str]]]:
        view = self._index.read()
        if names is None:
            roots = {each.digest: (each, set[str]()) for each in view.roots}
            chosen: Iterable[str] = view.named
        else:
            roots, chosen = {}, list(names)
        for name in chosen:
            named = view.named.get(name)
            if named is None:
                raise NotInStore(f"no model is called {name}", hint="`corral list` shows the names there are")
            roots.setdefault(named.descriptor.digest, (named.descriptor, set()))[1].add(name)
        return list(roots.values())


@dataclass(slots=True)
class _Leaf:
    size: int | None  # None when nothing says it
    users: set[str]


class _Run:
    """One run of `verify`."""

    def __init__(self, blobs: Blobs, graph: Graph, repair: Repair | None) -> None:
        self.found: list[Damage] = []
        self.leaves: dict[str, _Leaf] = {}
        self._blobs = blobs
        self._graph = graph
        self._repair = repair
        self._checked: set[str] = set()

    def manifests(self, root: Descriptor, users: set[str]) -> None:
        """Checks `root` and the manifests under it, and notes what they need."""
        waiting = [root]
        while waiting:
            each = waiting.pop()
            if each.digest not in self._checked:
                self._checked.add(each.digest)
                if not self._good(each.digest, each.size, users):
                    continue
            try:
                parts = self._graph.parts(each.digest)
            except CorralError as error:
                path = self._blobs.layout.blob(each.digest)
                self.found.append(Damage("manifest", each.digest, each.size, _sorted(users), path, error.message))
                continue
            for part in parts.needed:
                self.leaves.setdefault(part.digest, _Leaf(part.size, set())).users.update(users)
            if len(self._checked) <= _MAX_MANIFESTS:
                waiting += [
                    choice for choice in parts.choices if os.path.lexists(self._blobs.layout.blob(choice.digest))
                ]

    def check_leaves(self, progress: Progress) -> None:
        leaves = {digest: leaf for digest, leaf in self.leaves.items() if digest not in self._checked}
        sizes = {digest: self._size(digest, leaf.size) for digest, leaf in leaves.items()}
        done, total = 0, sum(sizes.values())
        for digest, leaf in leaves.items():
            before = done

            def more(count: int, before: int = before) -> None:
                progress(before + count, total)

            self._good(digest, leaf.size, leaf.users, more)
            done += sizes[digest]
            progress(done, total)

    def _size(self, digest: str, said: int | None) -> int:
        if said is not None:
            return said
        blob = self._blobs.find(digest)
        return 0 if blob is None else blob.size

    def _good(
        self, digest: str, size: int | None, users: set[str], on_bytes: Callable[[int], None] | None = None
    ) -> bool:
        damage = self._check(digest, size, users, on_bytes)
        if damage is not None and self._repair is not None:
            damage = self._mend(damage, self._repair)
        if damage is not None:
            self.found.append(damage)
        return damage is None or damage.repaired

    def _check(
        self, digest: str, size: int | None, users: set[str], on_bytes: Callable[[int], None] | None = None
    ) -> Damage | None:
        path = self._blobs.layout.blob(digest)

        def damage(kind: Kind, what: str) -> Damage:
            return Damage(kind, digest, size, _sorted(users), path, what)

        if not os.path.lexists(path):
            return damage("missing", f"{digest} is not in the store") if users else None
        expected = self._blobs.find(digest)
        try:
            with path.open("rb", buffering=0) as file:
                seen = os.fstat(file.fileno())
                if not stat.S_ISREG(seen.st_mode):
                    return damage("damaged", f"{path} is no plain file")
                found, count = hash_file(file, on_bytes=on_bytes)
        except FileNotFoundError:
            return damage("changed", self._blobs.missing(digest).message)
        except OSError as error:
            return damage("unreadable", f"{path} cannot be read: {error.strerror}")
        if size is not None and count != size:
            return damage("damaged" if expected else "changed", f"{path} has {count} bytes instead of {size}")
        if found != digest:
            return damage("damaged" if expected else "changed", f"{path} is {found} instead")
        if expected is None:
            self._renew(digest, seen)
        return None

    def _renew(self, digest: str, seen: os.stat_result) -> None:
        """The same bytes with another time or inode: the other tool wrote the file again."""
        origin = origins.read(self._blobs.layout, digest)
        if origin is not None:
            fresh = origins.origin_of(Path(origin.path), origin.how, seen)
            with self._blobs.scratch() as directory, self._blobs.lock.exclusive():
                origins.write(self._blobs.layout, digest, fresh, directory)

    def _mend(self, damage: Damage, repair: Repair) -> Damage:
        layout = self._blobs.layout
        origin = origins.read(layout, damage.digest)
        with self._blobs.scratch() as directory:
            aside = directory / "damaged"
            with contextlib.suppress(FileNotFoundError):
                damage.path.rename(aside)
            if not damage.names:  # nobody needs it, but a later pull would take it for whole
                with self._blobs.lock.exclusive():
                    if not os.path.lexists(damage.path):
                        origins.drop(layout, damage.digest)
                return replace(damage, repaired=True, what=f"{damage.what}; nothing needs it, so it was removed")
            try:
                done = repair(damage)
                why = "" if done else "it could not be fetched again"
            except CorralError as error:
                done, why = False, error.message
            if done and self._check(damage.digest, damage.size, set(damage.names)) is None:
                return replace(damage, repaired=True)
            with self._blobs.lock.exclusive():
                if os.path.lexists(aside) and not os.path.lexists(damage.path):
                    aside.rename(damage.path)
                    if origin is not None:
                        origins.write(layout, damage.digest, origin, directory)
            return replace(damage, what=f"{damage.what}; {why or 'what was fetched is no better'}")


def _sorted(users: set[str]) -> tuple[str, ...]:
    return tuple(sorted(users))
