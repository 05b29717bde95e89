"""`Book`: the SQLite file of measured figures. It blocks; one thread at a time uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from corral.ledger.figures import Figures, Key, dump_devices, load_devices

VERSION: Final = 1
"""Of the tables. A file of a later one is read by nobody earlier, and left as it is."""
KEPT: Final = 4000
"""Keys kept; those not loaded for longest go first."""
_BUSY_S: Final = 2.0
_TABLES: Final = """
CREATE TABLE figures (
    model TEXT NOT NULL, engine TEXT NOT NULL, settings TEXT NOT NULL,
    devices TEXT NOT NULL, load_s REAL, loads INTEGER NOT NULL, at_wall_s REAL NOT NULL,
    PRIMARY KEY (model, engine, settings)
) WITHOUT ROWID;
CREATE INDEX by_time ON figures (at_wall_s);
"""


_NOT_DAMAGED: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM,
    }
)  # fmt: skip
"""Of these the disk or the file's rights are to blame, not what is in it."""


class BookError(Exception):
    """The file cannot be used; `damaged` says that it never will be."""

    def __init__(self, words: str, *, damaged: bool) -> None:
        super().__init__(words)
        self.damaged = damaged


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        damaged = code is None or code & 0xFF not in _NOT_DAMAGED
        raise BookError(f"{path} is damaged ({error})" if damaged else f"{path}: {error}", damaged=damaged) from error
    except OSError as error:
        raise BookError(f"{path}: {error.strerror}", damaged=False) from error


class Book:
    """One open file. Every change is whole on disk before `write` returns, or it is not there at all."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Raises BookError."""
        self._path = path
        where = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        with _mapped(path):
            self._file = sqlite3.connect(
                where, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with _mapped(path):
                self._open(read_only)
        except BaseException:
            self._file.close()
            raise

    def _open(self, read_only: bool) -> None:
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise BookError(f"{self._path} is of a later version of Corral; remove it to begin anew", damaged=False)
        (verdict,) = self._file.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if read_only:
            return
        self._path.chmod(0o600)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last load, no more
        if version == 0:
            self._file.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")

    def read(self) -> dict[Key, Figures]:
        """Everything. A row that makes no sense is left out. Raises BookError."""
        found = {}
        with _mapped(self._path):
            rows = self._file.execute(
                "SELECT model, engine, settings, devices, load_s, loads, at_wall_s FROM figures"
            ).fetchall()
        for model, engine, settings, devices, load_s, loads, at_wall_s in rows:
            with suppress(ValueError):
                found[Key(model, engine, settings)] = Figures(load_devices(devices), load_s, loads, at_wall_s)
        return found

    def write(self, figures: Mapping[Key, Figures]) -> None:
        """Keeps these, in place of what was there of the same keys. Raises BookError."""
        rows = [
            (key.model, key.engine, key.settings, dump_devices(each.devices), each.load_s, each.loads, each.at_wall_s)
            for key, each in figures.items()
        ]
        with _mapped(self._path):
            self._file.execute("BEGIN IMMEDIATE")
            try:
                self._file.executemany("INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                self._file.execute(
                    "DELETE FROM figures WHERE at_wall_s < (SELECT at_wall_s FROM figures ORDER BY at_wall_s DESC"
                    " LIMIT 1 OFFSET ?)",
                    (KEPT - 1,),
                )
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._file.close()


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be used, and what SQLite keeps beside it; the new name. Raises OSError."""
    number = 1
    while (kept := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.rename(kept)
    for ending in ("-wal", "-shm"):
        beside = path.with_name(path.name + ending)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + ending))
    return kept
