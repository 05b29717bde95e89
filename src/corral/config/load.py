"""Loading: defaults < file < environment < flags, checked as a whole, with the origin of every value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from corral.config import assemble
from corral.config.document import Document, parse_document, read_document
from corral.config.environment import Setting, from_environment, read_dotenv
from corral.config.locate import Candidate, Located, locate, unusable
from corral.config.paths import Paths, find_paths
from corral.config.problem import NOWHERE, Key, Place, Problem, config_error
from corral.config.settings import Settings
from corral.config.trust import file_fault
from corral.lazy_dataclass import dataclass
from corral.short_names import USER_FILE, load_short_names

BUILT_IN = """\
default_model: demo
models:
  - name: demo
    source: builtin:demo
"""
"""The configuration of somebody who has none yet."""

_FROM_GLOBAL = frozenset({"env", "gpu_layers", "gpu_backend", "cpu_fallback", "on_out_of_memory"})
"""Keys of a model that a global key of the same name stands for where the model does not have them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from."""

    kind: Literal["default", "built-in", "file", "environment", ".env", "flag"]
    place: Place = NOWHERE

    def __str__(self) -> str:
        if self.place.line is None:
            return str(self.place) or self.kind
        return f"{Path(self.place.file).name}:{self.place.line}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that may be used. `origins` has every key that is not a default, models by name:
    `("models", "demo", "context")`."""

    settings: Settings
    origins: Mapping[Key, Origin]
    warnings: tuple[Problem, ...]
    file: Path | None  # None = the built-in default

    def origin(self, key: Key) -> Origin:
        """Where `key` was given (for one device or variable, the whole mapping will do); the default when nowhere."""
        found = self.origins.get(key)
        if found is None and len(key) == 4 and key[2] == "env":
            found = self.origins.get(key[2:])  # a variable that every engine gets
        if found is None and (key[0] in ("memory", "env") or (len(key) == 4 and key[2] == "env")):
            found = self.origins.get(key[:-1])
        if found is None and key[0] == "models" and key[2:3] and key[2] in _FROM_GLOBAL:
            return self.origin(key[2:])
        return found or Origin("default")


@dataclass(frozen=True, slots=True)
class Examined:
    """A configuration and all that is wrong with it; it may be used only when no problem is an error."""

    loaded: Loaded
    problems: tuple[Problem, ...]
    candidates: tuple[Candidate, ...]

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == "error"]


def load(
    config: Path | None = None,
    *,
    flags: Mapping[str, Any] = MappingProxyType({}),
    insecure: bool = False,
    keyed: Callable[[Path], bool] = lambda file: False,
    paths: Paths | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    in_use: Path | None = None,
) -> Loaded:
    """The configuration to run with. Reads files: call it in a thread when an event loop runs.

    `config` is the file of `--config`; `flags` are values by global key, as the command line gave them
    (`{"listen": ["127.0.0.1:0"]}`); `insecure` allows addresses beyond loopback, and so do keys:
    `keyed` looks for some in their file. `in_use` is the file that a running server has, which must still be there.

    Raises ConfigError with every problem at once, in `details["problems"]` too.
    """
    examined = examine(config, flags=flags, insecure=insecure, keyed=keyed, paths=paths, env=env, cwd=cwd)
    if in_use is not None and (lost := unusable(in_use, examined.candidates)) is not None:
        raise config_error([lost])
    if examined.errors:
        raise config_error(examined.errors)
    return examined.loaded


def examine(
    config: Path | None = None,
    *,
    flags: Mapping[str, Any] = MappingProxyType({}),
    insecure: bool = False,
    keyed: Callable[[Path], bool] = lambda file: False,
    paths: Paths | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Examined:
    """The same, with all that is wrong told instead of raised."""
    env = os.environ if env is None else env
    paths = find_paths(env) if paths is None else paths
    cwd = _working_directory() if cwd is None else cwd
    located = locate(paths, config, env, cwd)
    dotenvs = [read_dotenv(each / ".env") for each in _dotenv_directories(located, cwd)]
    overrides, doubts = from_environment(env, dotenvs)
    overrides += [Setting((key,), value, Place(f"--{key.replace('_', '-')}")) for key, value in flags.items()]
    document = parse_document(BUILT_IN, "built-in") if located.file is None else read_document(located.file)
    known = {name: text for dotenv in dotenvs for name, text in dotenv.values.items()} | dict(env)
    base = cwd if located.file is None else located.file.parent
    default_roots = (base.resolve(),) if located.step == "working directory" else ()

    built = assemble.assemble(
        document,
        overrides,
        base=base,
        cwd=cwd,
        env=known,
        default_roots=default_roots,
        insecure=insecure,
        keyed=partial(keyed, paths.access_file),
        short_names=load_short_names([paths.config_dir / USER_FILE]),
    )
    found = [
        *located.problems,
        *(problem for dotenv in dotenvs for problem in dotenv.problems),
        *doubts,
        *_file_doubts(located),
        *built.problems,
    ]
    problems = sorted(found, key=lambda problem: (problem.place.file, problem.place.line or 0))
    warnings = tuple(problem for problem in problems if problem.level == "warning")
    origins = _origins(document, built, located, overrides)
    loaded = Loaded(assemble.with_file(built.settings, located.file), origins, warnings, located.file)
    return Examined(loaded, tuple(problems), located.candidates)


def _origins(
    document: Document, built: assemble.Assembled, located: Located, overrides: list[Setting]
) -> dict[Key, Origin]:
    kind: Literal["built-in", "file"] = "built-in" if located.file is None else "file"
    origins = {key: Origin(kind, document.place(at) if kind == "file" else NOWHERE) for key, at in built.given.items()}
    for each in overrides:
        # Overridden as a whole, so what stood below it in the file no longer counts.
        origins = {key: origin for key, origin in origins.items() if key[: len(each.key)] != each.key}
        if each.place.line is not None:
            origins[each.key] = Origin(".env", each.place)
        else:
            origins[each.key] = Origin("flag" if each.place.file.startswith("--") else "environment", each.place)
    return origins


def _dotenv_directories(located: Located, cwd: Path) -> list[Path]:
    # Weakest first. The working directory's counts only when that directory is trusted.
    found = [] if located.file is None else [located.file.parent]
    if located.directory_trusted and cwd not in found:
        found.append(cwd)
    return found


def _file_doubts(located: Located) -> list[Problem]:
    if located.file is None or not located.file.is_file() or not (fault := file_fault(located.file)):
        return []
    hint = "it names programs to run, so only you should be able to change it"
    return [Problem(fault, hint, Place(str(located.file)), level="warning")]


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed: nothing is found in it
        return Path("/")
