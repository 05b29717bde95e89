"""The kept conversations on disk: a state file and its record each, bounded, checked before use.

Each model's state files are in a folder of its own, which is all that its engine is given; the records, with checksums,
lie beside these folders, where no engine in a sandbox sees them. Directories are 0700, files 0600. Nothing here is
worth keeping at any price: what is not whole goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from corral import clock
from corral.conversations import tokens
from corral.conversations.identity import Identity, stamp
from corral.errors import CorralError, EngineError
from corral.lazy_dataclass import dataclass

_CHUNK = 4 << 20
_VERDICTS = "verdicts.json"
_FLAT = 1
_LAYOUT = 2
"""In the first, all state files lay beside their records."""


@dataclass(frozen=True, slots=True)
class Record:
    """One kept conversation. It says nothing of what was said."""

    id: str
    build: str
    key: str
    model: str
    files: tuple[tuple[str, int, int], ...]  # of the model
    tokens: int
    bytes: int
    crc: int
    s_per_token: float  # what reading one took
    saved_wall_s: float
    used_wall_s: float
    layout: int = _LAYOUT


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was learnt about one model with one version of an engine."""

    strikes: int = 0  # restored in vain, one after another
    off: str | None = None  # why nothing is kept for it


class Shelf:
    """All kept conversations. Thread-safe; every method blocks for the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, Record] = {}
        self._tokens: dict[str, array[int]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._lock = threading.RLock()

    def open(self) -> None:
        """Reads what is there, and removes what is not whole or has lost its model. Raises OSError."""
        with self._lock:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._verdicts = dict(_verdicts(_read(self.folder / _VERDICTS, {})))
            for file in list(self.folder.glob("*.json")):
                if file.name != _VERDICTS and (record := self._load(file)) is not None:
                    self._records[record.id] = record
            known = {self.folder / _VERDICTS, *(self.folder / f"{each}.json" for each in self._records)}
            known |= {self.file(record) for record in self._records.values()}
            for file in [*self.folder.glob("*"), *self.folder.glob("*/*")]:
                # Folders stay, empty ones too: an engine that outlived the server before may have its own bound.
                if file not in known and (file.is_symlink() or not file.is_dir()):
                    _unlink(file)

    @property
    def bytes(self) -> int:
        return sum(record.bytes for record in list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def of(self, key: str, model: str | None = None) -> list[Record]:
        """Those with `key`, of one model: another with the same file has a folder of its own."""
        found = [record for record in list(self._records.values()) if record.key == key]
        return found if model is None else [record for record in found if record.model == model]

    def file(self, record: Record) -> Path:
        return self.place(record.model) / f"{record.id}.kv"

    def place(self, model: str) -> Path:
        """The folder of `model`'s state files, by a digest: a model's name may be too long for a file's."""
        return self.folder / hashlib.sha256(model.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def home(self, model: str) -> Path:
        """The same, made: its engine may write to it. Raises OSError."""
        home = self.place(model)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return home

    def part(self, model: str) -> Path:
        """A new file in that folder."""
        return self.place(model) / f"{secrets.token_hex(16)}.part"

    def room(self) -> int:
        """Free bytes of the disk."""
        return shutil.disk_usage(self.folder).free

    def size(self, part: Path) -> int:
        """Bytes of what an engine wrote; 0 when it wrote nothing."""
        try:
            return part.lstat().st_size
        except OSError:
            return 0

    # Taking in and giving out.

    def take(self, path: Path, model: str, of: Identity, count: int, s_per_token: float, most: int) -> Record | None:
        """Makes what an engine wrote a kept conversation, in place of those it goes on from. Others go, those used
        longest ago first, until all fit into `most` bytes; None when this alone does not.

        Raises OSError, and EngineError when the file cannot be read.
        """
        try:
            if not stat.S_ISREG(path.lstat().st_mode):  # an engine may have been turned against us
                raise EngineError("what the engine saved is no file", hint="see its log")
            path.chmod(0o600)
            size, now = path.stat().st_size, clock.wall()
            if size > most:
                return None
            held = tokens.read(path, count)
            record = Record(
                path.stem, of.build, of.key, model, of.files, count, size, _crc(path), s_per_token, now, now
            )
            with self._lock:
                for older in self.of(of.key, model):
                    if older.tokens <= count and self._begins(older, held):
                        self._drop(older)
                for oldest in sorted(self._records.values(), key=lambda each: each.used_wall_s):
                    if self.bytes + size <= most:
                        break
                    self._drop(oldest)
                path.rename(self.file(record))
                self._write(record)
                self._records[record.id], self._tokens[record.id] = record, held
            return record
        finally:
            _unlink(path)

    def best(self, key: str, request: array[int], among: set[str]) -> tuple[Record, int] | None:
        """The conversation that holds the longest beginning of `request`, and how much."""
        found: tuple[Record, int] | None = None
        for record in self.of(key):
            if record.id in among and (held := self._held(record)) is not None:
                count = tokens.shared(request, held)
                if count and (found is None or count > found[1]):
                    found = record, count
        return found

    def whole(self, record: Record) -> bool:
        """Whether its file is what was saved: an engine may not survive one that is not. Drops it otherwise."""
        try:
            file = self.file(record)
            if file.lstat().st_size == record.bytes and _crc(file) == record.crc:
                return True
        except OSError:
            pass
        self.drop(record)
        return False

    def used(self, record: Record) -> None:
        """It was put back; it goes last."""
        with self._lock, suppress(OSError):
            if record.id in self._records:
                self._records[record.id] = fresh = replace(record, used_wall_s=clock.wall())
                self._write(fresh)

    # Removing.

    def drop(self, record: Record) -> None:
        with self._lock:
            self._drop(record)

    def sweep(self) -> int:
        """Removes what belongs to a model file that is gone or another; how many."""
        return self._drop_if(lambda record: not _still(record.files))

    def forget(self, build: str) -> int:
        return self._drop_if(lambda record: record.build == build)

    def trim(self, most: int) -> None:
        """To at most `most` bytes."""
        with self._lock:
            for oldest in sorted(self._records.values(), key=lambda each: each.used_wall_s):
                if self.bytes <= most:
                    break
                self._drop(oldest)

    def clear(self) -> tuple[int, int]:
        """Removes everything, what was learnt too; how many conversations and bytes."""
        count, size = len(self), self.bytes
        self._drop_if(lambda record: True)
        with self._lock:
            self._verdicts = {}
            _unlink(self.folder / _VERDICTS)
        return count, size

    # What was learnt.

    def verdict(self, build: str) -> Verdict:
        return self._verdicts.get(build, Verdict())

    def judge(self, build: str, verdict: Verdict) -> None:
        """Raises OSError."""
        with self._lock:
            self._verdicts[build] = verdict
            _replace(self.folder / _VERDICTS, {key: asdict(each) for key, each in self._verdicts.items()})

    def bytes_per_token(self, key: str) -> float:
        """What a token took at most so far; 0 when nothing was kept yet."""
        return max((record.bytes / record.tokens for record in self.of(key)), default=0.0)

    # Inside.

    def _load(self, file: Path) -> Record | None:
        data = _read(file, None)
        try:
            record = Record(**{**data, "files": tuple((str(p), int(s), int(m)) for p, s, m in data["files"])})
            if record.layout == _FLAT and record.id == file.stem:
                (self.folder / f"{record.id}.kv").rename(self.home(record.model) / f"{record.id}.kv")
                record = replace(record, layout=_LAYOUT)
                self._write(record)
            whole = self.file(record).lstat().st_size == record.bytes and record.tokens > 0
        except (TypeError, KeyError, ValueError, OSError):
            return None
        return record if whole and record.layout == _LAYOUT and record.id == file.stem else None

    def _held(self, record: Record) -> array[int] | None:
        if (held := self._tokens.get(record.id)) is None:
            try:
                held = self._tokens[record.id] = tokens.read(self.file(record), record.tokens)
            except (OSError, CorralError):
                self.drop(record)
        return held

    def _begins(self, older: Record, held: array[int]) -> bool:
        old = self._held(older)
        return old is not None and tokens.shared(old, held) == older.tokens

    def _drop_if(self, doomed: Callable[[Record], bool]) -> int:
        with self._lock:
            gone = [record for record in self._records.values() if doomed(record)]
            for record in gone:
                self._drop(record)
            return len(gone)

    def _drop(self, record: Record) -> None:
        self._records.pop(record.id, None)
        self._tokens.pop(record.id, None)
        _unlink(self.folder / f"{record.id}.json")
        _unlink(self.file(record))

    def _write(self, record: Record) -> None:
        _replace(self.folder / f"{record.id}.json", asdict(record))


def _verdicts(data: dict[str, Any]) -> Iterator[tuple[str, Verdict]]:
    for build, each in data.items():
        with suppress(TypeError):
            yield build, Verdict(**each)


def _still(files: tuple[tuple[str, int, int], ...]) -> bool:
    try:
        return all(stamp(Path(path)) == (path, size, at) for path, size, at in files)
    except OSError:
        return False


def _crc(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def _read(file: Path, otherwise: Any) -> Any:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return otherwise
    return data if isinstance(data, dict) else otherwise


def _replace(file: Path, data: Mapping[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(data, out)
        fresh.replace(file)
    except OSError:
        _unlink(fresh)
        raise


def _unlink(file: Path) -> None:
    with suppress(OSError):
        file.unlink()
