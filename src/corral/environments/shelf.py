"""The environments of one engine on disk: which there are, which is current, what is unfinished."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

from corral.errors import CallerError, EngineMissing, InUse, NotFound
from corral.lazy_dataclass import dataclass
from corral.store import durable, locks

RECORD: Final = "corral-environment.json"
FORMAT: Final = 1
SHORT: Final = 16
"""So many digits of the identity name the directory."""
BUSY_S: Final = 60.0

Origin = Literal["shipped", "index", "wheels"]


@dataclass(frozen=True, slots=True)
class Environment:
    """One finished environment."""

    engine: str
    variant: str
    version: str
    python: str  # of its interpreter: "cpython-3.11-linux-x86_64"
    identity: str  # SHA-256 of its lock, engine, variant and Python
    origin: Origin  # of its lock: it came with Corral, from an index's answer, or from a folder of wheels
    packages: int
    bytes: int  # on the disk, when it was made
    made_wall_s: float
    asked_version: str  # which version was asked for; empty: whichever Corral ships
    path: Path

    @property
    def id(self) -> str:
        return self.identity[:SHORT]

    @property
    def interpreter(self) -> Path:
        return self.path / "bin" / "python"

    def __str__(self) -> str:
        return f"{self.engine} {self.version} ({self.variant}, {self.id})"


class Shelf:
    """The environments of `engine` below `root` (`Paths.engines_dir`). Reading needs no lock; any process may."""

    def __init__(self, root: Path, engine: str) -> None:
        self.engine = engine
        self.folder = root / engine

    def all(self) -> list[Environment]:
        """The finished ones, oldest first."""
        found = [read(each) for each in self.folder.glob(f"*/{RECORD}")] if self.folder.is_dir() else []
        return sorted((each for each in found if each is not None), key=lambda each: each.made_wall_s)

    def current(self) -> Environment | None:
        """The one to start engines from."""
        return next(iter(self._order()), None)

    def needed(self) -> Environment:
        """The same. Raises EngineMissing when there is none."""
        if (found := self.current()) is None:
            raise EngineMissing(
                f"{self.engine} is not installed",
                hint=f"install it with: corral engine install {self.engine} --variant cpu",
            )
        return found

    def find(self, wanted: str) -> Environment:
        """The one whose identity begins with `wanted`, or whose version it is. Raises NotFound, or CallerError when
        there are several."""
        found = [each for each in self.all() if each.identity.startswith(wanted.lower())]
        found = found or [each for each in self.all() if wanted in (each.version, f"{each.version}-{each.variant}")]
        if len(found) == 1:
            return found[0]
        hint = "corral engine list shows them"
        if not found:
            raise NotFound(f"no environment of {self.engine} is called {wanted[:64]!r}", hint=hint)
        raise CallerError(
            f"{wanted[:64]!r} means {len(found)} environments of {self.engine}", hint=f"give more of its id; {hint}"
        )

    def put_first(self, environment: Environment) -> None:
        """Makes it the current one; the one that was comes next."""
        with self.changing():
            order = [each for each in self._history() if each != environment.id]
            self._write([environment.id, *order])

    def roll_back(self, wanted: str | None = None) -> tuple[Environment, Environment]:
        """Goes back to the one before, or to the one called `wanted`: the one that was current, and that which is now.

        Raises NotFound when there is none.
        """
        with self.changing():
            order = self._order()
            if not order:
                raise NotFound(f"no environment of {self.engine} is current", hint="corral engine list shows them")
            if wanted is None and len(order) < 2:
                raise NotFound(f"there is none before {order[0]}", hint=f"corral engine list {self.engine} shows them")
            to = order[1] if wanted is None else self.find(wanted)
            if to.id == order[0].id:
                return to, to
            # The one left is the last of all now: rolling back again goes on backwards.
            kept = [each.id for each in order if each.id not in (order[0].id, to.id)]
            self._write([to.id, *kept, order[0].id])
            return order[0], to

    def remove(self, environment: Environment) -> None:
        """Takes it away; where it was current, the one before is now. Raises InUse while another process makes it."""
        with self.making(environment.id, wait_s=0.0) as free:
            if not free:
                raise InUse(f"{environment} is being installed by another process", hint="wait for it, then try again")
            with self.changing(), durable.disk_errors("remove an environment"):
                (environment.path / RECORD).unlink(missing_ok=True)  # first: nobody starts from half of one
                self._write([each for each in self._history() if each != environment.id])
            shutil.rmtree(environment.path, ignore_errors=True)
            self._tidy(environment.id)

    def unfinished(self) -> list[Path]:
        """Directories of installations that were cut short, and that nobody is at."""
        if not self.folder.is_dir():
            return []
        names = sorted(each for each in self.folder.iterdir() if each.is_dir())
        return [
            each
            for each in names
            if not (each / RECORD).exists() and locks.free(self._lock(each.name.removesuffix(".tmp")))
        ]

    def sweep(self) -> list[Path]:
        """Removes those; which they were."""
        swept = []
        for each in self.unfinished():
            name = each.name.removesuffix(".tmp")
            with self.making(name, wait_s=0.0) as free:
                if free and not (each / RECORD).exists():
                    shutil.rmtree(each, ignore_errors=True)
                    self._tidy(name)
                    swept.append(each)
        return swept

    @contextmanager
    def making(self, name: str, *, wait_s: float) -> Iterator[int | None]:
        """Holds the lock of the environment `name`; the descriptor, which a child that writes there should have too, or
        None when another process has it for longer than `wait_s`."""
        with durable.disk_errors("lock an environment"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = locks.take(self._lock(name), wait_s=wait_s)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the shelf's own lock, for moments."""
        with durable.disk_errors("change which environment is current"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = locks.take(self.folder / "lock", wait_s=BUSY_S)
            if descriptor is None:
                raise InUse(f"another process is changing the environments of {self.engine}", hint="try again")
            try:
                yield
            finally:
                os.close(descriptor)

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _tidy(self, name: str) -> None:
        for suffix in ("lock", "log"):
            with suppress(OSError):
                (self.folder / f"{name}.{suffix}").unlink()

    def _order(self) -> list[Environment]:
        known = {each.id: each for each in self.all()}
        return [known[each] for each in self._history() if each in known]

    def _history(self) -> list[str]:
        try:
            found = json.loads((self.folder / "current.json").read_bytes())
        except (OSError, ValueError):
            return []
        order = found.get("order") if isinstance(found, dict) else None
        return [each for each in order if isinstance(each, str)] if isinstance(order, list) else []

    def _write(self, order: list[str]) -> None:
        data = json.dumps({"format": FORMAT, "order": order}).encode()
        durable.replace(self.folder / "current.json", data, self.folder / "current.new")


def read(record: Path) -> Environment | None:
    """The environment whose record it is; None where it cannot be read as one."""
    try:
        found = json.loads(record.read_bytes())
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
            return None
        return Environment(**found, path=record.parent)
    except (OSError, ValueError, TypeError):
        return None


def write(environment: Environment) -> None:
    """Writes its record, by which it is finished."""
    data = asdict(environment)
    del data["path"]
    text = json.dumps({"format": FORMAT, **data}, indent=1).encode()
    durable.replace(environment.path / RECORD, text, environment.path / f"{RECORD}.new")
