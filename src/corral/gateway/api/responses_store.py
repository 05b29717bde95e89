"""`ResponsesStore`: responses that were asked to be kept, in one SQLite file of the state directory. It blocks.

Bounded in time and size: those that nobody used for longest go first. What is used keeps those before it too.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from corral.errors import StoreError

VERSION: Final = 1
"""Of the table. A file of a later one is left as it is."""
MOST_BYTES: Final = 512 << 20
LONGEST_CHAIN: Final = 1000
_BUSY_S: Final = 5.0
_EVERY: Final = 50  # writes between two looks at what is too old or too much
_TABLE: Final = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, previous TEXT, items TEXT NOT NULL, response TEXT NOT NULL,
    bytes INTEGER NOT NULL, used_wall_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_use ON responses (used_wall_s);
"""


class Kept(NamedTuple):
    """One response and what it answered."""

    id: str
    previous: str | None
    items: list[dict[str, Any]]  # the input of its own turn
    response: dict[str, Any]


class ResponsesStore:
    """One file, opened when it is used, by any thread, one at a time. Methods raise StoreError."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        """Opens nothing yet. The file is for its user alone: it holds what was said."""
        self.path, self._most = path, most_bytes
        self._lock = threading.Lock()
        self._writes = 0
        self._open: sqlite3.Connection | None = None

    def _opened(self) -> sqlite3.Connection:
        if not self.path.exists():
            self.path.touch(0o600)
        file = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")  # a killed server loses nothing of it
            file.execute("BEGIN IMMEDIATE")
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(f"{self.path} is of a later version of Corral", hint="use that version")
            if version == 0:
                for statement in _TABLE.split(";"):
                    file.execute(statement)
                file.execute(f"PRAGMA user_version = {VERSION}")
            file.execute("COMMIT")
        except BaseException:
            file.close()
            raise
        return file

    def put(self, kept: Kept, owner: str, now_wall_s: float, ttl_s: float | None) -> None:
        """Keeps one."""
        items, response = json.dumps(kept.items), json.dumps(kept.response)
        row = (kept.id, owner, kept.previous, items, response, len(items) + len(response), now_wall_s)
        with self._whole() as file:
            file.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._writes += 1
            if self._writes % _EVERY == 1:
                self._forget(file, now_wall_s, ttl_s)

    def get(self, name: str, owner: str, now_wall_s: float, ttl_s: float | None) -> Kept | None:
        """The response `name` of `owner`, None when there is none, or it is too old."""
        with self._whole() as file:
            return _get(file, name, owner, _oldest(now_wall_s, ttl_s))

    def chain(self, name: str, owner: str, now_wall_s: float, ttl_s: float | None) -> list[Kept] | None:
        """`name` and all before it, the first one first; None when one of them is not here. All count as used now."""
        found: list[Kept] = []
        oldest = _oldest(now_wall_s, ttl_s)
        wanted: str | None = name
        with self._whole() as file:
            while wanted is not None:
                kept = _get(file, wanted, owner, oldest) if len(found) < LONGEST_CHAIN else None
                if kept is None:
                    return None
                found.append(kept)
                wanted = kept.previous
            file.executemany(
                "UPDATE responses SET used_wall_s = ? WHERE id = ?", [(now_wall_s, kept.id) for kept in found]
            )
        return found[::-1]

    def drop(self, name: str, owner: str) -> bool:
        """Whether it was there."""
        with self._whole() as file:
            done = file.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (name, owner))
            return done.rowcount > 0

    def close(self) -> None:
        """Until it is used again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _forget(self, file: sqlite3.Connection, now_wall_s: float, ttl_s: float | None) -> None:
        file.execute("DELETE FROM responses WHERE used_wall_s < ?", (_oldest(now_wall_s, ttl_s),))
        (size,) = file.execute("SELECT COALESCE(SUM(bytes), 0) FROM responses").fetchone()
        if size <= self._most:
            return
        keep = self._most - self._most // 10  # room for a while
        for name, each in file.execute("SELECT id, bytes FROM responses ORDER BY used_wall_s").fetchall():
            if size <= keep:
                return
            file.execute("DELETE FROM responses WHERE id = ?", (name,))
            size -= each

    @contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._open = self._open or self._opened()
                yield self._open
            except (sqlite3.Error, OSError) as error:
                hint = "make room, or see who else uses it; `store: false` keeps nothing"
                raise StoreError(f"{self.path} cannot be used: {error}", hint=hint) from error


def _oldest(now_wall_s: float, ttl_s: float | None) -> float:
    return float("-inf") if ttl_s is None else now_wall_s - ttl_s


def _get(file: sqlite3.Connection, name: str, owner: str, oldest: float) -> Kept | None:
    row = file.execute(
        "SELECT id, previous, items, response FROM responses WHERE id = ? AND owner = ? AND used_wall_s >= ?",
        (name, owner, oldest),
    ).fetchone()
    return None if row is None else Kept(row[0], row[1], json.loads(row[2]), json.loads(row[3]))
