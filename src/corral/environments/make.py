"""Making an environment: a lock found, pip run, what came checked, and only then put on the shelf."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from corral import clock
from corral.environments import pip, wheels
from corral.environments.child import Children, Say, Step
from corral.environments.lock import Lock
from corral.environments.resolve import ask_index
from corral.environments.shelf import Environment, Origin, Shelf, write
from corral.environments.variants import Variant, shipped
from corral.errors import CallerError, DiskFull, InstallFailed
from corral.lazy_dataclass import dataclass
from corral.store import durable
from corral.units import show_bytes

_PIP_BYTES: Final = 32 << 20
"""What an empty environment with pip takes."""
_FACTS: Final = """
import json, platform, sys
version = sys.version_info
print(json.dumps([f"{sys.implementation.name}-{version[0]}.{version[1]}-{sys.platform}-{platform.machine()}",
                  list(version[:3])]))
"""
_CHECK: Final = """
import importlib, importlib.metadata, json, sys
distribution, *modules = sys.argv[1:]
for name in modules:
    importlib.import_module(name)
version = getattr(sys.modules.get("torch"), "version", None)
print("corral:" + json.dumps({"version": importlib.metadata.version(distribution),
                              "cuda": getattr(version, "cuda", None), "hip": getattr(version, "hip", None)}))
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted."""

    variant: Variant
    version: str = ""  # empty: the one that Corral ships
    folder: Path | None = None  # of wheels, which are all there will be
    python: Path = Path(sys.executable)  # whose environment it is to be


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` came to."""

    environment: Environment
    made: bool  # False: it was there already
    swept: tuple[Path, ...] = ()  # what was left by installations cut short


def install(request: Request, shelf: Shelf, say: Say) -> Installed:
    """Makes the environment, unless it is there, and has it be the current one.

    May be ended at any moment, by KILL too: what is unfinished is never used, and removed by the next installation.
    Raises CallerError, InstallFailed, DiskFull, StoreError.
    """
    if request.folder is not None and request.version:
        raise CallerError(
            "--version and --wheels do not go together", hint="the folder says which version it is", param="version"
        )
    with durable.disk_errors("make an environment"):
        swept = tuple(shelf.sweep())
        with _scratch(shelf) as children:
            python = _facts(children, request.python)
            found, lock, origin, unpacked = None, None, "wheels", 0
            if request.folder is not None:
                lock, unpacked = wheels.lock_in(request.folder, say)
            elif (lock := shipped(request.variant, request.version, python)) is not None:
                origin = "shipped"
            elif (found := _like(request, python, shelf)) is None:
                wanted = request.variant.requirements(request.version)
                lock = ask_index(children, request.python, wanted, request.variant, children.scratch / "pip", say)
                origin = "index"
        if found is not None:
            return Installed(_taken(shelf, found), False, swept)
        assert lock is not None
        done = _at_its_place(request, shelf, lock, python, origin, unpacked, say)
        return replace(done, swept=swept)


def _like(request: Request, python: str, shelf: Shelf) -> Environment | None:
    """The newest that was made of an index's answer to the same question: an answer holds until one is asked anew by
    removing it."""
    wanted = (request.variant.name, request.version, python, "index")
    same = [each for each in shelf.all() if (each.variant, each.asked_version, each.python, each.origin) == wanted]
    return same[-1] if same else None


def _at_its_place(
    request: Request, shelf: Shelf, lock: Lock, python: str, origin: str, unpacked: int, say: Say
) -> Installed:
    identity = lock.identity(request.variant.engine, request.variant.name, python)
    name = identity[:16]
    with shelf.making(name, wait_s=0.0) as free:
        if free is not None:
            return _made(request, shelf, lock, python, origin, unpacked, say, identity, free)
    say(Step("waiting", "another process is installing the same"))
    with shelf.making(name, wait_s=math.inf) as free:
        assert free is not None
        return _made(request, shelf, lock, python, origin, unpacked, say, identity, free)


def _made(
    request: Request,
    shelf: Shelf,
    lock: Lock,
    python: str,
    origin: str,
    unpacked: int,
    say: Say,
    identity: str,
    held: int,
) -> Installed:
    """With the lock of the environment held."""
    variant = request.variant
    path = shelf.folder / identity[:16]
    there = next((each for each in shelf.all() if each.identity == identity), None)
    if there is not None:
        return Installed(_taken(shelf, there), False)
    shutil.rmtree(path, ignore_errors=True)
    _need_room(shelf.folder, variant.least_bytes if origin == "shipped" else unpacked + _PIP_BYTES if unpacked else 0)
    children = Children(shelf.folder / f"{path.name}.log", held, shelf.folder / f"{path.name}.tmp")
    children.log.unlink(missing_ok=True)
    try:
        say(Step("preparing", "a virtual environment"))
        pip.new_environment(children, request.python, path)
        file = path / "lock.txt"
        file.write_text(lock.text(), encoding="utf-8")
        pip.install(children, path, file, len(lock.pins), request.folder, variant.hint, say)
        say(Step("checking", ", ".join(variant.imports)))
        pip.check(children, path, variant.dropped)
        version = _checked(children, path, variant, lock)
        environment = Environment(
            engine=variant.engine,
            variant=variant.name,
            version=version,
            python=python,
            identity=identity,
            origin=_origin(origin),
            packages=len(lock.pins),
            bytes=disk_bytes(path),
            made_wall_s=clock.wall(),
            asked_version=request.version,
            path=path,
        )
        os.sync()  # a record that outlives a power cut in which the files it speaks for are lost would be a lie
        write(environment)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(children.scratch, ignore_errors=True)
    return Installed(_taken(shelf, environment), True)


def _taken(shelf: Shelf, environment: Environment) -> Environment:
    shelf.put_first(environment)
    return environment


def _origin(word: str) -> Origin:
    return "shipped" if word == "shipped" else "wheels" if word == "wheels" else "index"


def _checked(children: Children, path: Path, variant: Variant, lock: Lock) -> str:
    """The version that is there. Raises InstallFailed where it does not load, or is built for something else."""
    names = [name for name in (variant.distribution, variant.engine) if lock.version(name) is not None]
    if not names:
        names = [pin.name for pin in lock.pins if pin.name.startswith(f"{variant.engine}-")]
    if not names:
        raise InstallFailed(f"there is no {variant.engine} in it", hint=f"add a wheel of {variant.distribution}")
    ended = children.run([path / "bin" / "python", "-I", "-c", _CHECK, names[0], *variant.imports])
    told = next((each for each in reversed(ended.lines) if each.startswith("corral:")), "")
    if ended.code or not told:
        raise pip.failed(ended, f"{variant.engine} was installed but does not load", children.log)
    found = json.loads(told.removeprefix("corral:"))
    built = "cuda" if found["cuda"] else "rocm" if found["hip"] else "cpu"
    if built != variant.name:
        raise InstallFailed(
            f"its torch is built for {built}, not for {variant.name}", hint=variant.hint or f"try --variant {built}"
        )
    return str(found["version"])


def _facts(children: Children, python: Path) -> str:
    """What kind of Python that is. Raises InstallFailed."""
    ended = children.run([python, "-I", "-c", _FACTS])
    try:
        tag, version = json.loads(ended.lines[-1])
    except (ValueError, IndexError, TypeError) as error:
        raise pip.failed(ended, f"{python} is no Python that can be asked", children.log) from error
    if tuple(version) < (3, 9):
        raise InstallFailed(f"{python} is too old", hint="name Python 3.10 or later with --python")
    return str(tag)


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"it needs {show_bytes(needed)}, and {show_bytes(free)} are free in {folder}",
            hint="make room there, or set CORRAL_DATA_DIR to a directory on another disk",
        )


def disk_bytes(path: Path) -> int:
    """What everything below `path` takes on the disk."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            status = os.lstat(f"{folder}/{name}")
            total += getattr(status, "st_blocks", status.st_size // 512) * 512
    return total


@contextmanager
def _scratch(shelf: Shelf) -> Iterator[Children]:
    """Children whose every file is gone afterwards."""
    name = f"scratch-{secrets.token_hex(4)}"
    with shelf.making(name, wait_s=0.0) as held:
        assert held is not None
        folder = shelf.folder / name
        try:
            yield Children(shelf.folder / f"{name}.log", held, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (shelf.folder / f"{name}.log").unlink(missing_ok=True)
            (shelf.folder / f"{name}.lock").unlink(missing_ok=True)
