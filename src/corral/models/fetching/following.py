"""The two that follow a download: one hashes what has arrived, one makes sure that it is on the disk."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from corral import clock
from corral.errors import StoreError
from corral.models.fetching.partfile import PartFile, disk_error

READ_BYTES = 128 << 10
"""Small enough to stay in the processor's cache until it is hashed: with 1 MiB that took half as long again."""
AWAITED_BYTES = 4 << 20
"""What is worth waking up for."""
NEAR_BYTES = 32 << 20
"""Further behind than this, the hash follows by reading the file: nobody waits for it to catch up."""
SYNC_BYTES = 128 << 20
SYNC_S = 3.0
LOOK_S = 0.1


class Follower(ABC, threading.Thread):
    """A thread beside a download. `error` is why it gave up."""

    def __init__(self, part: PartFile, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._part = part
        self._told = False
        self.error: StoreError | None = None

    def tell_to_stop(self) -> None:
        with self._part.changed:
            self._told = True
            self._part.changed.notify_all()

    def run(self) -> None:
        try:
            self.follow()
        except StoreError as error:
            self.error = error
        except OSError as error:
            self.error = disk_error(error, self._part.path)
        finally:
            with self._part.changed:
                self._told = True
                self._part.changed.notify_all()

    @abstractmethod
    def follow(self) -> None:
        """The work, until the file is whole or it is told to stop. Raises StoreError and OSError."""


class Handed(NamedTuple):
    """Bytes that were written and are hashed from memory; `release` is called when they may be overwritten."""

    position: int
    data: memoryview
    release: Callable[[], None]


class Hasher(Follower):
    """sha256 up to the frontier: of what is handed over, else read back from the page cache, once."""

    def __init__(self, part: PartFile) -> None:
        super().__init__(part, "corral-hash")
        self._sha = hashlib.sha256()
        self._handed: deque[Handed] = deque()
        self.position = 0

    @property
    def digest(self) -> str:
        return "sha256:" + self._sha.hexdigest()

    @property
    def ended(self) -> bool:
        """Whether it takes nothing any more, and releases nothing. To be asked for while `changed` is held."""
        return self._told

    def takes(self, position: int) -> bool:
        """Whether what is written at `position` can be handed over: all before it is here, and nearly all hashed.

        It stays so until that is done. To be asked for while `changed` is held.
        """
        if self._told:
            return False
        if self._handed:
            last = self._handed[-1]
            return last.position + len(last.data) == position
        return self._part.frontier >= position and 0 <= position - self.position <= NEAR_BYTES

    def hand(self, handed: Handed) -> None:
        """Hands over what `takes` said yes to, in one holding of `changed` with saying that it is written."""
        self._handed.append(handed)
        self._part.changed.notify_all()

    def follow(self) -> None:
        part = self._part
        buffer = memoryview(bytearray(min(READ_BYTES, max(1, part.size))))
        with part.path.open("rb", buffering=0) as file:
            while self.position < part.size and not self._told:
                with part.changed:
                    part.awaited = min(part.size, self.position + AWAITED_BYTES)
                    part.changed.wait_for(self._more)
                    handed = self._handed[0] if self._handed else None
                    until = handed.position if handed else part.frontier
                file.seek(self.position)
                while self.position < until and not self._told:
                    count = file.readinto(buffer[: until - self.position])
                    if not count:
                        raise StoreError(f"{part.path} became shorter", hint="something else changes the store")
                    self._sha.update(buffer[:count])
                    self.position += count
                if handed is not None and not self._told:
                    self._sha.update(handed.data)
                    with part.changed:
                        self.position += len(handed.data)
                        self._handed.popleft()
                        handed.release()

    def _more(self) -> bool:
        return self._told or bool(self._handed) or self._part.frontier >= self._part.awaited


class Syncer(Follower):
    """Sends what was written to the disk as it comes, so that a power loss costs little and the last sync is short."""

    def __init__(self, part: PartFile) -> None:
        super().__init__(part, "corral-sync")

    def follow(self) -> None:
        part, before, synced = self._part, self._part.found_bytes, clock.monotonic()
        while True:
            with part.changed:
                part.changed.wait_for(self._due, LOOK_S)
                if self._told:
                    return
                have, done = part.have_bytes, part.done
            if not done and have - before < SYNC_BYTES and clock.monotonic() - synced < SYNC_S:
                continue
            part.sync()
            before, synced = have, clock.monotonic()
            if done:
                return

    def _due(self) -> bool:
        return self._told or self._part.done
