"""`Places`: what the store takes and what is free on its disks, looked up now and then in a thread."""

from __future__ import annotations

import asyncio
import os
from dataclasses import field
from pathlib import Path
from typing import Final

from corral import clock
from corral.config.paths import Paths
from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.models.library import Library
from corral.supervisor.means import Spawn

DISKS_EVERY_S: Final = 10.0
STORE_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, in bytes."""

    free: int
    total: int


@dataclass(slots=True)
class Found:
    """What is known now; nothing where nobody could tell."""

    store_bytes: int | None = None
    disks: dict[str, Disk] = field(default_factory=dict)  # by what is on them: "store", "state"


class Places:
    """One event loop. It looks when it is asked, and the answer is there for the next one who asks."""

    def __init__(self, paths: Paths, library: Library, spawn: Spawn) -> None:
        self._folders = {"store": paths.store_dir, "state": paths.state_dir}
        self._library, self._spawn = library, spawn
        self._looking: asyncio.Task[None] | None = None
        self._store_at = self._disks_at = float("-inf")
        self.found = Found()

    def refresh(self) -> None:
        """Begins to look, where what is known is old."""
        now = clock.monotonic()
        if self._looking is not None and not self._looking.done():
            return
        if now - self._disks_at >= DISKS_EVERY_S or now - self._store_at >= STORE_EVERY_S:
            self._looking = self._spawn(self._look(now), name="look at disks")

    async def _look(self, now: float) -> None:
        if now - self._disks_at >= DISKS_EVERY_S:
            self.found.disks, self._disks_at = await asyncio.to_thread(_disks, self._folders), now
        if now - self._store_at >= STORE_EVERY_S:
            self.found.store_bytes = await asyncio.to_thread(self._stored)
            if self.found.store_bytes is not None:  # else it is looked at again with the disks
                self._store_at = now

    def _stored(self) -> int | None:
        if not self._folders["store"].exists():  # nobody has stored anything yet
            return 0
        try:
            return self._library.store.usage().total_bytes
        except (CorralError, OSError):
            return None  # `corral verify` tells what is wrong with it


def _disks(folders: dict[str, Path]) -> dict[str, Disk]:
    found = {}
    for name, folder in folders.items():
        try:
            seen = os.statvfs(folder)
        except OSError:
            continue  # not made yet, or gone
        found[name] = Disk(seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize)
    return found
