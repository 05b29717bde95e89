"""The engines there are on this machine, as `corral engine list` and `corral doctor` say it; it needs no daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines import executables
from corral.engines.args import REFUSALS
from corral.environments import llama_server
from corral.environments.make import disk_bytes
from corral.environments.shelf import Environment, Shelf
from corral.environments.variants import installable
from corral.errors import CorralError, EngineError
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine that could serve models."""

    engine: str
    version: str
    variant: str
    state: (
        str  # "current", "kept" (rollback goes to it), "unfinished", "embedded", "built", "on PATH", or "broken: why"
    )
    id: str
    bytes: int  # on the disk; 0 where it is not ours
    devices: list[str]  # what it can use beside the processor
    path: str


def engines(paths: Paths) -> list[Engine]:
    """All of them. Asks each llama.cpp in a child process, with a deadline each; blocks."""
    return [*llama_cpps(paths), *environments(paths)]


def environments(paths: Paths) -> list[Engine]:
    """Those that Corral installed, the unfinished too. Reads only what was recorded."""
    found: list[Engine] = []
    for name in installable():
        shelf = Shelf(paths.engines_dir, name)
        current = shelf.current()
        found += [_environment(each, current) for each in shelf.all()]
        for path in shelf.unfinished():
            found.append(Engine(name, "", "", "unfinished", path.name, disk_bytes(path), [], str(path)))
    return found


def _environment(each: Environment, current: Environment | None) -> Engine:
    state = "current" if current is not None and each.id == current.id else "kept"
    devices = {"cpu": [], "cuda": ["NVIDIA GPUs"], "rocm": ["AMD GPUs"]}[each.variant]
    return Engine(each.engine, each.version, each.variant, state, each.id, each.bytes, devices, str(each.path))


def llama_cpps(paths: Paths) -> list[Engine]:
    """The embedded one, those that Corral built, and the llama-server on PATH."""
    found: list[Engine] = []
    with suppress(CorralError):
        found.append(_build(executables.embedded(), "embedded", "", 0))
    known = set()
    for each in llama_server.builds(paths.cache_dir):
        known.add(each.program.resolve())
        place = each.program.parent.parent
        found.append(_program(each.program, "built", place.name, disk_bytes(place), each.variant))
    on_path = executables.on_path()
    if on_path is not None and on_path.resolve() not in known:
        found.append(_program(on_path, "on PATH", "", 0, ""))
    return found


def refused_args(models: Iterable[ModelSettings], paths: Paths) -> Iterator[tuple[str, EngineError]]:
    """Each of `args` and `env` that every start of its model would refuse, by the model's name. May ask a llama-server
    for its flags in a child process; blocks."""
    for model in models:
        for error in REFUSALS[model.engine](model, paths):
            yield model.name, error


def llama_cpp(program: Path) -> Engine:
    """The one that this program is. Asks it in a child process; blocks."""
    return _program(program, "given", "", 0, "")


def _program(program: Path, state: str, name: str, size: int, variant: str) -> Engine:
    try:
        return _build(executables.llama_server(str(program)), state, name, size, variant)
    except CorralError as error:
        return Engine("llama.cpp", "", variant, f"broken: {error.message}", name, size, [], str(program))


def _build(build: executables.Build, state: str, name: str, size: int, variant: str = "") -> Engine:
    try:
        devices = [f"{each.name}: {each.words}" for each in executables.listing(build)]
    except CorralError as error:
        devices = [f"cannot be asked: {error.message}"]
    return Engine("llama.cpp", build.version, variant or _variant(build), state, name, size, devices, str(build.path))


def _variant(build: executables.Build) -> str:
    return "embedded" if build.kind == "embedded" else "found"
