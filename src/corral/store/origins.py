"""Records of blobs whose bytes others can reach: links to files outside the store, and hard links to them.

A record says what the file looked like when it was hashed. It is compared before each use, so that a file that was
changed, replaced or pruned by its other owner is noticed and never served as what it was.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from corral.lazy_dataclass import dataclass
from corral.store import durable
from corral.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a blob's bytes came from, and how to tell that they are still the same."""

    path: str  # absolute
    how: Literal["reference", "hardlink"]
    size: int
    mtime_ns: int
    inode: int
    device: int  # told, not compared: it changes when a disk is mounted again

    def fits(self, seen: os.stat_result) -> bool:
        return (self.size, self.mtime_ns, self.inode) == (seen.st_size, seen.st_mtime_ns, seen.st_ino)


def origin_of(path: Path, how: Literal["reference", "hardlink"], seen: os.stat_result) -> Origin:
    return Origin(str(path), how, seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_dev)


def record_path(layout: Layout, digest: str) -> Path:
    return layout.external / f"{layout.blob(digest).name}.json"


def read(layout: Layout, digest: str) -> Origin | None:
    """The record of a blob; None when there is none, or it is damaged."""
    try:
        data = json.loads(record_path(layout, digest).read_bytes())
        return Origin(**data)
    except (OSError, ValueError, TypeError):
        return None


def write(layout: Layout, digest: str, origin: Origin, scratch: Path) -> None:
    """On the disk when this returns. `scratch` is a directory of the caller's."""
    data = json.dumps(asdict(origin)).encode("utf-8", "surrogateescape")
    durable.replace(record_path(layout, digest), data, scratch / "record")


def drop(layout: Layout, digest: str) -> None:
    record_path(layout, digest).unlink(missing_ok=True)
