"""`Book`: the SQLite file with keys, slabs of budgets and usage. It blocks; one thread at a time uses it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from corral import clock
from corral.access.figures import Slab, UsageKey, Used
from corral.access.keys import SCOPES, Key, Limits, Scope
from corral.errors import StoreError

VERSION: Final = 1
"""Of the tables. A file of a later one is left as it is."""
KEPT_DAYS: Final = 800
"""Of usage; what is older goes when something is written."""
_BUSY_S: Final = 5.0
_TABLES: Final = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scopes TEXT NOT NULL, models TEXT NOT NULL,
    limits TEXT NOT NULL, created_wall_s REAL NOT NULL, expires_wall_s REAL, revoked_wall_s REAL,
    before BLOB, before_until_wall_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE spent (
    key TEXT NOT NULL, period TEXT NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (key, period)
) WITHOUT ROWID;
CREATE TABLE usage (
    day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt INTEGER NOT NULL, completion INTEGER NOT NULL,
    PRIMARY KEY (day, key, model)
) WITHOUT ROWID;
"""


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path} cannot be used: {error}",
            hint="make room, or see who else uses it; `corral doctor` looks at the disk",
        ) from error


class Book:
    """One open file. Every change is whole on disk before a method returns, or it is not there at all."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError."""
        self._path = path
        with _mapped(path):
            if not path.exists():
                path.touch(0o600)
            self._file = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with _mapped(path):
                self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"{self._path} is of a later version of Corral", hint="use that version")
        self._path.chmod(0o600)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")  # what is spent must outlive a crash of the machine too
        if version == 0:
            with self._whole():
                (version,) = self._file.execute("PRAGMA user_version").fetchone()  # another may have been quicker
                if version == 0:
                    for statement in _TABLES.split(";"):
                        self._file.execute(statement)
                    self._file.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def keys(self) -> dict[str, Key]:
        """All keys by id, oldest first, revoked ones too. Raises StoreError."""
        with _mapped(self._path):
            rows = self._file.execute("SELECT * FROM keys ORDER BY created_wall_s, id").fetchall()
        return {row[0]: _key(*row) for row in rows}

    def put(self, key: Key) -> None:
        """Keeps `key`, in place of one with its id. Raises StoreError."""
        limits = {name: getattr(key.limits, name) for name in Limits.__dataclass_fields__}
        row = (
            key.id, key.name, key.digest, " ".join(sorted(key.scopes)), json.dumps(key.models), json.dumps(limits),
            key.created_wall_s, key.expires_wall_s, key.revoked_wall_s, key.before, key.before_until_wall_s,
        )  # fmt: skip
        with _mapped(self._path), self._whole():
            self._file.execute(f"INSERT OR REPLACE INTO keys VALUES ({','.join('?' * len(row))})", row)

    def spent(self) -> dict[str, dict[str, int]]:
        """Tokens by key and period. Raises StoreError."""
        found: dict[str, dict[str, int]] = {}
        with _mapped(self._path):
            for key, period, tokens in self._file.execute("SELECT key, period, tokens FROM spent"):
                found.setdefault(key, {})[period] = tokens
        return found

    def write(self, slabs: Iterable[Slab], used: Mapping[UsageKey, Used]) -> None:
        """Raises what is spent, never lowers it, and adds usage. Raises StoreError."""
        with _mapped(self._path), self._whole():
            self._file.executemany(
                "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = max(tokens, excluded.tokens)",
                list(slabs),
            )
            self._file.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " requests = requests + excluded.requests, prompt = prompt + excluded.prompt,"
                " completion = completion + excluded.completion",
                [(*where, *what) for where, what in used.items()],
            )
            if used:
                newest = max(where.day for where in used)
                self._file.execute("DELETE FROM usage WHERE day < date(?, ?)", (newest, f"-{KEPT_DAYS} days"))
                self._file.execute("DELETE FROM spent WHERE period < substr(date(?, '-62 days'), 1, 7)", (newest,))

    def give_back(self, slabs: Iterable[tuple[Slab, int]]) -> None:
        """Lowers what is spent to the second figure, where nobody has raised it since. Raises StoreError."""
        with _mapped(self._path), self._whole():
            self._file.executemany(
                "UPDATE spent SET tokens = ? WHERE key = ? AND period = ? AND tokens = ?",
                [(tokens, slab.key, slab.period, slab.tokens) for slab, tokens in slabs],
            )

    def usage(self, since_day: str = "", key: str | None = None) -> dict[UsageKey, Used]:
        """Raises StoreError."""
        with _mapped(self._path):
            rows = self._file.execute(
                "SELECT * FROM usage WHERE day >= ? AND (? IS NULL OR key = ?) ORDER BY day, key, model",
                (since_day, key, key),
            ).fetchall()
        return {UsageKey(*row[:3]): Used(*row[3:]) for row in rows}

    def close(self) -> None:
        self._file.close()


def has_keys(path: Path) -> bool:
    """Whether `path` has a key that counts, for who looks before a server runs. Raises StoreError."""
    if not path.exists():
        return False
    book = Book(path)
    try:
        return any(key.problem(clock.wall()) is None for key in book.keys().values())
    finally:
        book.close()


def _key(
    key_id: str, name: str, digest: bytes, scopes: str, models: str, limits: str, created: float,
    expires: float | None, revoked: float | None, before: bytes | None, before_until: float,
) -> Key:  # fmt: skip
    known: dict[str, Scope] = {each: each for each in SCOPES}
    return Key(
        key_id, name, digest, frozenset(known[each] for each in scopes.split() if each in known),
        tuple(json.loads(models)), Limits(**json.loads(limits)), created, expires, revoked, before, before_until,
    )  # fmt: skip
