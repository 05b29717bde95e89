"""The store as the rest of Corral sees it: one object per directory, for any number of threads and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from corral.descriptors import MAX_MANIFEST_BYTES, Descriptor
from corral.errors import NotInStore
from corral.store import archive, holds, reserve
from corral.store.adding import Added, How, add_file
from corral.store.archive import Moved
from corral.store.blobs import Blob, Blobs
from corral.store.collect import GRACE_S, PARTIAL_AGE_S, Collected, Collector, Rules
from corral.store.graph import Graph
from corral.store.history import History, Past
from corral.store.index import Index, Named
from corral.store.layout import Layout
from corral.store.locks import StoreLock
from corral.store.naming import Names, Naming
from corral.store.partial import Partial, PartialView, partials
from corral.store.usage import Usage, measure
from corral.store.verify import Damage, Repair, Verifier


class Store:
    """A model store. Making the object touches nothing; everything else wants `prepare` to have been called once.

    All methods block, raise StoreError (DiskFull, NotInStore, InUse) with a hint, and are safe to call from several
    threads; several processes may have objects of the same directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.layout = Layout(self.root)
        self._lock = StoreLock(self.layout.lock)
        self._blobs = Blobs(self.layout, self._lock)
        self._graph = Graph(self._blobs)
        self._index = Index(self.layout)
        self._history = History(self.layout)
        parts = (self._blobs, self._graph, self._index)
        self._collector = Collector(*parts, self._history, self._lock)
        self._verifier = Verifier(*parts)
        self._names = Names(self._blobs, self._graph, self._index, self._history, self._lock)

    def prepare(self) -> None:
        """Makes the store or checks that it is one. Raises StoreError for other directories and newer versions."""
        self.layout.prepare()
        reserve.keep(self.layout)

    @property
    def jobs_dir(self) -> Path:
        return self.layout.jobs

    @property
    def placed_dir(self) -> Path:
        return self.layout.placed

    # --- blobs

    def find(self, digest: str) -> Blob | None:
        """The blob, when it is here, whole, and its file is what it was when it was hashed."""
        return self._blobs.find(digest)

    def blob(self, digest: str) -> Blob:
        """As `find`. Raises NotInStore with the reason."""
        return self._blobs.get(digest)

    def partial(self, key: str, size: int | None = None) -> Partial:
        """The file in which a blob comes together, for this owner alone. `key` is its digest where that is known.

        Raises InUse when another thread or process has it.
        """
        return Partial(self._blobs, key, size)

    def partials(self) -> list[PartialView]:
        """Downloads that are not whole, running or left."""
        return partials(self._blobs)

    def add_bytes(self, data: bytes) -> tuple[str, int]:
        """Digest and size of `data`, a blob from now on. No name points to it yet: see `hold`."""
        return self._blobs.add_bytes(data)

    def add_file(self, path: Path, *, how: How = "auto", digest: str | None = None) -> Added:
        """The file as a blob. auto is the first of reflink, hardlink and copy that is possible here.

        Raises DigestMismatch when it is not `digest`, StoreError when it changes meanwhile or `how` is impossible.
        """
        return add_file(self._blobs, path, how, digest)

    def spool(self) -> AbstractContextManager[Path]:
        """A directory in the store's file system for a file that is to become a blob; removed at the end."""
        return self._blobs.scratch()

    def room(self) -> int:
        """Bytes that may still be written into the store's file system."""
        return self._blobs.room()

    def require_room(self, size: int) -> None:
        """Raises DiskFull when `size` more bytes do not fit."""
        self._blobs.require_room(size)

    # --- names

    def names(self) -> list[Named]:
        """Every name, sorted."""
        named = self._index.read().named
        return [named[name] for name in sorted(named)]

    def lookup(self, name: str) -> Named | None:
        return self._index.read().named.get(name)

    def names_of(self, digest: str) -> list[str]:
        """The names that point to the model `digest`, sorted."""
        return sorted(each.name for each in self._index.read().named.values() if each.descriptor.digest == digest)

    def set_name(
        self,
        name: str,
        descriptor: Descriptor,
        annotations: Mapping[str, str] = MappingProxyType({}),
        *,
        why: str = "set",
    ) -> None:
        """Points `name` to a manifest whose blobs are all here. `why` is a word for the history: pull, tag, import …

        Raises NotInStore, and changes nothing, when a blob is missing.
        """
        self._names.set([Naming(name, descriptor, annotations)], why)

    def set_names(self, namings: list[Naming], *, why: str = "set") -> None:
        """Several names in one step. Raises as `set_name` does."""
        self._names.set(namings, why)

    def remove_name(self, name: str) -> Named:
        """Takes a name away; what only it reached stays until `collect`.

        Raises NotInStore; InUse when the model is held and has no other name.
        """
        return self._names.remove(name)

    def history(self, name: str) -> list[Past]:
        """What the name pointed to, newest first. Raises NotInStore when there never was such a name."""
        return self._names.past(name)

    def rollback(self, name: str, digest: str | None = None) -> Past:
        """Points the name to an earlier digest, or to the one before; gives where it points now.

        Raises NotInStore when there is none, or its blobs have been collected.
        """
        return self._names.back(name, digest)

    # --- content

    def read_bytes(self, digest: str, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small blob, checked. Raises NotInStore, DigestMismatch, ManifestError when it is larger than `limit`."""
        return self._blobs.read(digest, limit)

    def read_json(self, digest: str) -> dict[str, Any]:
        """A small blob that is a JSON object. Raises as `read_bytes` does, and ManifestError."""
        return self._blobs.read_json(digest)

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest or index `digest`, with what it names checked to be descriptors. Raises as `read_json` does."""
        self._graph.parts(digest)
        return self._blobs.read_json(digest)

    def whole(self, descriptor: Descriptor) -> list[Descriptor]:
        """Every blob of a model, its manifest first. Raises NotInStore when one is missing."""
        return list(self._graph.whole(descriptor).values())

    # --- use

    def hold(self, *digests: str, absent_ok: bool = False) -> holds.Hold:
        """Says that these are in use until the hold is released or its process ends. A manifest stands for its model.

        A pull holds, with `absent_ok`, every digest it is about to fetch or found here. Raises NotInStore.
        """
        return holds.hold(self._blobs, self._lock, digests, absent_ok=absent_ok)

    def is_held(self, digest: str) -> bool:
        return holds.is_held(self._blobs, digest)

    # --- upkeep

    def collect(
        self,
        *,
        dry_run: bool = False,
        keep: int = 1,
        grace_s: float = GRACE_S,
        partial_age_s: float = PARTIAL_AGE_S,
    ) -> Collected:
        """Removes what nobody reaches, or says what that would be.

        Stays: names' models, the `keep` newest digests each name had before, what is held; for `grace_s`, and as long
        as an older partial is open, what no name ever reached; unfinished downloads younger than `partial_age_s`.
        Raises StoreError, nothing removed, when a damaged manifest hides what is needed.
        """
        return self._collector.collect(Rules(keep, grace_s, partial_age_s), dry_run=dry_run)

    def usage(self, *, keep: int = 1) -> Usage:
        """Where every byte is. `keep` as in `collect`."""
        kept = self._collector.reached(Rules(keep))
        return measure(self._blobs, self._graph, self._index, kept)

    def verify(
        self,
        names: Iterable[str] | None = None,
        *,
        repair: Repair | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Damage]:
        """Reads and hashes the models of `names`, or every blob. `repair` fetches one again, says whether it could.

        Raises NotInStore when there is no such name.
        """
        return self._verifier.verify(names, repair, progress)

    def export(
        self, names: Iterable[str], out: Path | BinaryIO, *, progress: Callable[[int, int], None] | None = None
    ) -> Moved:
        """Writes models as an OCI image layout in a tar archive: to a file that appears when whole, or a stream.

        Raises NotInStore, DigestMismatch when a blob is damaged.
        """
        with ExitStack() as holding:
            chosen = {}
            for name in names:
                named = self.lookup(name)
                if named is None:
                    raise NotInStore(f"no model is called {name}", hint="`corral list` shows the names there are")
                holding.enter_context(self.hold(named.descriptor.digest))
                chosen[name] = named
            return archive.export(self._blobs, self._graph, chosen.values(), out, progress)

    def load(
        self,
        source: Path | BinaryIO,
        *,
        name: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Moved:
        """Reads an archive that `export`, skopeo or Docker wrote; sets its names, or `name` for its one model.

        Raises ArchiveRefused for one that is damaged or made to do harm, DiskFull; then no name is changed.
        """
        namings, loaded = archive.load(self._blobs, source, name, progress)
        try:
            self.set_names(namings, why="load")
        except NotInStore as error:
            raise archive.lacking(error) from error
        return loaded
