"""Where every byte of the store is, each file counted once however many links it has."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.store import origins
from corral.store.blobs import Blobs
from corral.store.graph import Graph
from corral.store.index import Index, Named
from corral.store.layout import digest_named
from corral.store.walk import files


@dataclass(frozen=True, slots=True)
class NameUsage:
    """One name's model. Removing the name and collecting gives `own_bytes` back."""

    name: str
    digest: str
    bytes: int  # all of the model's blobs
    own_bytes: int  # of those, in blobs of the store that no other name reaches
    external_bytes: int  # of `bytes`: in files outside the store, or that another tool has linked too


@dataclass(frozen=True, slots=True)
class Usage:
    """The store's files by what they are for; these sum to `total_bytes`. Sizes are files' lengths, save for partials.

    Reflinked blobs count in full: the file system does not say what they share.
    """

    names: tuple[NameUsage, ...]
    named_bytes: int  # blobs that names reach
    shared_bytes: int  # of `named_bytes`: reached by names of more than one digest
    kept_bytes: int  # blobs that only `rollback` reaches
    unreferenced_bytes: int  # blobs that the next `collect` removes, or that are on their way to a name
    partial_bytes: int  # downloads that are not whole: what they occupy on the disk
    placed_bytes: int  # unpacked files; links to blobs are counted as blobs
    other_bytes: int  # index, history, records, locks, and files of other tools
    total_bytes: int
    linked_bytes: int  # of the blobs: hard-linked from outside too, so that removing them here frees nothing
    external_bytes: int  # outside the store, referred to; not in `total_bytes`
    room_bytes: int  # free for this user in the store's file system


class _Inode:
    """One file of the store, under every name that it has there."""

    def __init__(self, seen: os.stat_result, path: Path, kind: str) -> None:
        self.links = seen.st_nlink
        self.here = 0
        self.digest = (digest_named(path.name) if kind == "blob" and stat.S_ISREG(seen.st_mode) else None) or ""
        self.kind = "other" if kind == "blob" and not self.digest else kind
        # A partial is a file with holes.
        self.size = seen.st_blocks * 512 if kind == "partial" else seen.st_size


def measure(blobs: Blobs, graph: Graph, index: Index, kept: set[str]) -> Usage:
    """`kept` are the digests that names and kept history reach. Damaged models count as far as they can be followed."""
    named = index.read().named
    reach: dict[str, dict[str, int]] = {}
    for each in named.values():
        if each.descriptor.digest not in reach:
            reach[each.descriptor.digest] = _reach(graph, each)
    users = Counter(digest for parts in reach.values() for digest in parts)  # by models, not by names
    namesakes = Counter(each.descriptor.digest for each in named.values())
    external = _external(blobs)
    inodes = list(_walk(blobs).values())
    sums: Counter[str] = Counter()
    for inode in inodes:
        kind = inode.kind
        if kind == "blob":
            kind = "named" if inode.digest in users else "kept" if inode.digest in kept else "unreferenced"
        sums[kind] += inode.size
    of_blobs = [inode for inode in inodes if inode.kind == "blob"]
    linked = {inode.digest: inode.size for inode in of_blobs if inode.links > inode.here}
    own = {inode.digest for inode in of_blobs if users[inode.digest] == 1} - linked.keys()

    def usage_of(name: str, digest: str) -> NameUsage:
        parts = reach[digest]
        alone = namesakes[digest] == 1
        return NameUsage(
            name,
            digest,
            bytes=sum(parts.values()),
            own_bytes=sum(size for each, size in parts.items() if each in own) if alone else 0,
            external_bytes=sum(size for each, size in parts.items() if each in external or each in linked),
        )

    return Usage(
        names=tuple(usage_of(name, named[name].descriptor.digest) for name in sorted(named)),
        named_bytes=sums["named"],
        shared_bytes=sum(inode.size for inode in of_blobs if users[inode.digest] > 1),
        kept_bytes=sums["kept"],
        unreferenced_bytes=sums["unreferenced"],
        partial_bytes=sums["partial"],
        placed_bytes=sums["placed"],
        other_bytes=sums["other"],
        total_bytes=sum(sums.values()),
        linked_bytes=sum(linked.values()),
        external_bytes=sum(external.values()),
        room_bytes=blobs.room(),
    )


def _reach(graph: Graph, named: Named) -> dict[str, int]:
    root = named.descriptor
    try:
        return {digest: each.size for digest, each in graph.reach(root).items()}
    except CorralError:
        return {root.digest: root.size}


def _external(blobs: Blobs) -> dict[str, int]:
    """Blobs that are files elsewhere, with their sizes when they were hashed."""
    found = {}
    for record in blobs.layout.external.iterdir():
        digest = digest_named(record.stem)
        origin = origins.read(blobs.layout, digest) if digest else None
        if digest and origin is not None and blobs.layout.blob(digest).is_symlink():
            found[digest] = origin.size
    return found


def _walk(blobs: Blobs) -> dict[tuple[int, int], _Inode]:
    """Every file of the store, links not followed. A blob that has links elsewhere in the store counts as the blob."""
    layout = blobs.layout
    inodes: dict[tuple[int, int], _Inode] = {}
    # Blobs first, so that what is placed beside them is a second link to what was counted.
    parts = {layout.blobs: "blob", layout.partial: "partial", layout.placed: "placed"}
    for directory, kind in {**parts, layout.root: "other"}.items():
        for path in files(directory, parts.keys() - {directory}):
            try:
                seen = path.lstat()
            except FileNotFoundError:
                continue  # finished or removed meanwhile
            inode = inodes.setdefault((seen.st_dev, seen.st_ino), _Inode(seen, path, kind))
            inode.here += 1
    return inodes
