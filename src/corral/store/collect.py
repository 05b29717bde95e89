"""Mark and sweep: the only way bytes leave the store.

Kept are the models that names point to, the newest of what each name was before, what anybody holds, and what may be
on its way to a name: blobs that came after the oldest open partial was opened, or a short while ago. That last grace
does not cover what was a named model and was removed after it came, so that a removal frees its bytes at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from corral.errors import CorralError, DiskFull, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable, holds, origins, partial, reserve, scratch, walk
from corral.store.blobs import Blobs
from corral.store.graph import Graph
from corral.store.history import REMOVED, History, Past, released
from corral.store.index import Index, View
from corral.store.layout import Layout, digest_named
from corral.store.locks import StoreLock

GRACE_S = 3600.0
PARTIAL_AGE_S = 7 * 86400.0
FORGET_S = 90 * 86400.0
"""After so long, a name that is gone, its blobs too, leaves the history."""
MAX_PAST = 100
"""Changes kept per name."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept beside what is in use."""

    keep: int = 1  # earlier digests of each name that can still be gone back to
    grace_s: float = GRACE_S  # for blobs that no name ever pointed to
    partial_age_s: float = PARTIAL_AGE_S  # for downloads that nobody goes on with


@dataclass(frozen=True, slots=True)
class Collected:
    """What went, or with `dry_run` would go. `bytes` is what the file system got back from all of it."""

    blobs: tuple[str, ...]
    bytes: int
    names: tuple[str, ...]  # that can no longer go back to something they were
    partial_bytes: int  # of `bytes`: downloads that nobody went on with
    shared_bytes: int  # not in `bytes`: removed here, still there under another tool's hard link, or outside the store


@dataclass(frozen=True, slots=True)
class _Marked:
    reached: set[str]
    roots: set[str]
    released: dict[str, float]  # when a digest was last let go by a name
    pasts: dict[str, list[Past]]


class Collector:
    """Collects one store. Thread-safe, and safe beside other processes."""

    def __init__(self, blobs: Blobs, graph: Graph, index: Index, history: History, lock: StoreLock) -> None:
        self._blobs = blobs
        self._layout: Layout = blobs.layout
        self._graph = graph
        self._index = index
        self._history = history
        self._lock = lock

    def collect(self, rules: Rules, *, dry_run: bool) -> Collected:
        """Raises StoreError, nothing removed, when a named manifest is damaged: what it needs cannot be known then."""
        self._mark(self._index.read(), set(), rules)  # reads the manifests before the lock is held
        with self._lock.exclusive(), durable.disk_errors("collect what nobody uses"):
            marked = self._mark(self._index.read(), holds.held(self._blobs), rules)
            blobs = list(self._candidates(marked, rules))
            placed = list(self._placed(marked, rules))
            doomed = [self._layout.blob(digest) for digest in blobs] + placed
            freed, shared = self._weigh(doomed)
            lost = _lost(marked, set(blobs))
            waste = [*scratch.abandoned(self._layout), *self._layout.trash.iterdir()]
            freed += sum(_bytes_under(each) for each in waste)
            if not dry_run:
                doomed = [self._discard(each) for each in doomed]
                self._drop_records()
                with contextlib.suppress(DiskFull):  # then the next collection does it
                    self._forget(marked)
        partial_bytes = partial.sweep(self._blobs, rules.partial_age_s, dry_run=dry_run)
        if not dry_run:
            for each in (*doomed, *waste):  # large files take the file system a while, so outside of the lock
                _remove(each)
            reserve.keep(self._layout)
        return Collected(tuple(sorted(blobs)), freed + partial_bytes, tuple(sorted(lost)), partial_bytes, shared)

    def reached(self, rules: Rules) -> set[str]:
        """Every digest that names and kept history reach, present or not, as far as can be followed. Takes no lock."""
        return self._mark(self._index.read(), set(), rules, strict=False).reached

    def _mark(self, view: View, held: set[str], rules: Rules, *, strict: bool = True) -> _Marked:
        reached: set[str] = set()
        named = {each.descriptor.digest for each in view.named.values()}
        for root in {each.digest: each for each in view.roots}.values():
            try:
                reached.update(self._graph.reach(root))
            except CorralError as error:
                nobodys = root.digest not in named and self._blobs.find(root.digest) is None
                if nobodys or not strict:  # an entry of another tool that points to nothing at all
                    reached.add(root.digest)
                    continue
                raise StoreError(
                    f"the store cannot tell what is in use: {error.message}",
                    hint="`corral verify --repair` mends it; removing the name that points there helps too",
                    digest=root.digest,
                ) from error
        roots = {root.digest for root in view.roots} | held
        reached |= self._graph.guess(held)
        pasts = self._history.every()
        gone: dict[str, float] = {}
        for name, changes in pasts.items():
            for digest in _kept(view, name, changes, rules.keep):
                roots.add(digest)
                reached |= self._graph.guess([digest])
            for digest, when in released(changes).items():
                for each in self._graph.guess([digest]):
                    gone[each] = max(gone.get(each, 0.0), when)
        return _Marked(reached, roots, gone, pasts)

    def _candidates(self, marked: _Marked, rules: Rules) -> Iterator[str]:
        spared_since = self._spared_since(rules)
        for file in self._layout.blobs.iterdir():
            digest = digest_named(file.name)
            if digest is None or digest in marked.reached:
                continue
            with contextlib.suppress(FileNotFoundError):
                came = file.lstat().st_mtime
                if origins.read(self._layout, digest) is not None:
                    came = origins.record_path(self._layout, digest).stat().st_mtime
                if came < spared_since or came <= marked.released.get(digest, 0.0):
                    yield digest

    def _spared_since(self, rules: Rules) -> float:
        opened = partial.oldest_open(self._blobs)
        since = time.time() - rules.grace_s
        return since if opened is None else min(since, opened)

    def _placed(self, marked: _Marked, rules: Rules) -> Iterator[Path]:
        since = time.time() - rules.grace_s
        for directory in self._layout.placed.iterdir():
            digest = digest_named(directory.name.removeprefix("sha256:")) or ""
            if digest in marked.roots or digest in marked.reached:
                continue
            came = directory.lstat().st_mtime
            if came < since or came <= marked.released.get(digest, 0.0):
                yield directory

    def _weigh(self, doomed: list[Path]) -> tuple[int, int]:
        """Bytes that removing these frees, and bytes that others keep."""
        links: Counter[tuple[int, int]] = Counter()
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        outside = 0
        for each, seen in chain.from_iterable(map(_files, doomed)):
            if stat.S_ISLNK(seen.st_mode):
                digest = digest_named(each.name) if each.parent == self._layout.blobs else None
                origin = origins.read(self._layout, digest) if digest else None
                outside += origin.size if origin else 0
                continue
            key = (seen.st_dev, seen.st_ino)
            links[key] += 1
            sizes[key] = (seen.st_size, seen.st_nlink)
        freed = sum(size for key, (size, count) in sizes.items() if links[key] >= count)
        return freed, outside + sum(size for key, (size, count) in sizes.items() if links[key] < count)

    def _discard(self, path: Path) -> Path:
        target = self._layout.trash / f"{time.time_ns():x}-{path.name[-80:]}"
        with contextlib.suppress(FileNotFoundError):  # set aside by a repair that goes on
            path.rename(target)
        return target

    def _drop_records(self) -> None:
        for record in self._layout.external.iterdir():
            if not (self._layout.blobs / record.stem).is_symlink() and not (self._layout.blobs / record.stem).exists():
                record.unlink(missing_ok=True)

    def _forget(self, marked: _Marked) -> None:
        named = self._index.read().named
        long_ago = time.time() - FORGET_S
        kept = {}
        for name, changes in marked.pasts.items():
            here = any(self._layout.blob(past.digest).exists() for past in changes)
            if name in named or here or changes[-1].at_wall_s >= long_ago:
                kept[name] = changes[-MAX_PAST:]
        if kept != marked.pasts:
            self._history.rewrite(kept)


def _kept(view: View, name: str, changes: list[Past], keep: int) -> list[str]:
    named = view.named.get(name)
    if named is None:
        return []
    earlier = dict.fromkeys(past.digest for past in reversed(changes) if past.why != REMOVED)
    earlier.pop(named.descriptor.digest, None)
    return list(earlier)[:keep]


def _lost(marked: _Marked, swept: set[str]) -> set[str]:
    return {name for name, changes in marked.pasts.items() if any(past.digest in swept for past in changes)}


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for each in walk.files(path) if path.is_dir() and not path.is_symlink() else [path]:
        with contextlib.suppress(FileNotFoundError):
            yield each, each.lstat()


def _bytes_under(path: Path) -> int:
    return sum(seen.st_size for _, seen in _files(path) if seen.st_nlink == 1 and not stat.S_ISLNK(seen.st_mode))


def _remove(path: Path) -> None:
    # Another process may be removing the same rest of an earlier sweep.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
