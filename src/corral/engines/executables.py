"""The llama.cpp builds on this machine: found, and asked what they are.

Everything here blocks; what a build said is kept in memory until its file changes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final, Literal, TypeVar

from corral.errors import EngineError, EngineMissing
from corral.hardware.backends import backends_in
from corral.hardware.devices import Listed, parse_listing
from corral.hardware.vulkan import signs
from corral.lazy_dataclass import dataclass

ASK_WITHIN_S = 20.0
"""How long a build may take to say its version, flags or devices: a GPU driver's first start takes seconds."""

PROGRAM: Final = "llama-server"

T = TypeVar("T")
Stamp = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class InImage:
    """Of a build that is in a container's image: which, and how it is reached."""

    reference: str
    id: str
    nodes: tuple[str, ...]  # the devices that it is given
    env: Mapping[str, str]  # what it needs beside the image's own
    listing: Callable[[Mapping[str, str], Sequence[str], bool], str]  # its list of devices; asked afresh, or as before
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """One llama.cpp build."""

    kind: Literal["embedded", "llama-server"]
    path: Path  # of the program, or of the embedded engine's library; symbolic links resolved
    version: str
    flags: Mapping[str, int]  # what llama-server's --help lists, with the number of values; empty for the embedded one
    libraries: tuple[Path, ...]  # the files that llama.cpp itself is in
    inside: InImage | None = field(default=None, compare=False)  # then `path` is one of the image's

    def __str__(self) -> str:
        where = "the embedded engine" if self.kind == "embedded" else str(self.path)
        where = where if self.inside is None else self.inside.reference
        return f"{where} (llama.cpp {self.version})"


def embedded() -> Build:
    """The engine that comes with Corral. Raises EngineMissing when the xllamacpp package is not installed."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise EngineMissing(
            "the embedded engine is not installed",
            hint=f"install it with `{sys.executable} -m pip install xllamacpp`, or name a llama-server as `executable`",
        )
    folder = Path(spec.submodule_search_locations[0])
    libraries = sorted(folder.glob("xllamacpp*.so")) or sorted(folder.glob("xllamacpp*.pyd"))
    if not libraries:
        raise EngineMissing(
            f"the embedded engine is damaged: its library is not in {folder}",
            hint=f"install it again with `{sys.executable} -m pip install --force-reinstall xllamacpp`",
        )
    version = importlib.metadata.version("xllamacpp")
    return Build("embedded", libraries[0], f"xllamacpp {version}", {}, (libraries[0],))


def llama_server(name: str) -> Build:
    """The build that `name` (a program on PATH, or an absolute path) is. Raises EngineMissing or EngineError."""
    found = shutil.which(name)
    if found is None:
        where = "is not there, or not executable" if "/" in name else "is not on PATH"
        raise EngineMissing(
            f"the engine program {name} {where}",
            hint="correct `executable`, install llama.cpp, or use `executable: embedded`",
            executable=name,
        )
    return kept(Path(found).resolve(), "build", _read)


def on_path() -> Path | None:
    """The `llama-server` on PATH, if there is one."""
    found = shutil.which(PROGRAM)
    return None if found is None else Path(found)


def listing(
    build: Build, environment: Mapping[str, str] | None = None, args: Sequence[str] = (), *, afresh: bool = False
) -> tuple[Listed, ...]:
    """The GPUs that `build` can use under `environment`, in its own order; none for a build without.

    `args` are those that add devices (`--rpc`). What was said, and that nothing was, is remembered as long as the
    machine's device nodes and drivers' manifests stay the same; `afresh` asks again. Raises EngineError when the build
    cannot be asked: a driver that hangs is waited for once, not at each start.
    """
    asked = _asked_so(build, environment, args)
    if build.inside is not None:
        return _listed_inside(build.inside, asked, environment or {}, args, afresh)
    environment = _environment(environment or {})
    key = repr(("devices", asked, signs(environment)))
    found = kept(build.path, key, lambda _: _answered(build, environment, args), afresh=afresh)
    if isinstance(found, EngineError):
        raise found.with_traceback(None)
    if found:
        _had_devices.add(asked)
    return found


def _listed_inside(
    inside: InImage, asked: str, environment: Mapping[str, str], args: Sequence[str], afresh: bool
) -> tuple[Listed, ...]:
    text = inside.listing(environment, args, afresh)
    found = tuple(parse_listing(text.partition("vailable devices:")[2]))
    if found:
        _had_devices.add(asked)
    return found


def build_inside(program: Path, version_text: str, help_text: str, inside: InImage) -> Build:
    """The build that is in an image, from what it said. Raises EngineError when it is no llama-server."""
    return Build(PROGRAM, program, _version(version_text), _flags_of(program, help_text), (), inside)


_had_devices: set[str] = set()


def had_devices(build: Build, environment: Mapping[str, str] | None = None, args: Sequence[str] = ()) -> bool:
    """Whether `listing` has ever found a GPU for these."""
    return _asked_so(build, environment, args) in _had_devices


def environment_of(more: Mapping[str, str]) -> dict[str, str]:
    """What a build is asked in: our own environment, and `more`."""
    return _environment(more)


def _asked_so(build: Build, environment: Mapping[str, str] | None, args: Sequence[str]) -> str:
    name = str(build.path) if build.inside is None else build.inside.id
    return repr((name, sorted(_environment(environment or {}).items()), tuple(args)))


def devices(build: Build, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The names of those. Raises EngineError when the build cannot be asked."""
    return tuple(each.name for each in listing(build, environment))


_EMBEDDED_DEVICES = (
    "import xllamacpp as x\n"
    "for d in x.get_device_info():\n"
    "    if d['type'].name.endswith('GPU'):\n"
    "        total, free = d['memory_total'] >> 20, d['memory_free'] >> 20\n"
    "        print(f\"  {d['name']}: {d['description']} ({total} MiB, {free} MiB free)\")\n"
)


def _ask_devices(build: Build, environment: Mapping[str, str], args: Sequence[str]) -> tuple[Listed, ...]:
    if build.kind == "embedded":
        text = asked((sys.executable, "-I", "-c", _EMBEDDED_DEVICES), environment)
    elif "--list-devices" in build.flags:
        text = asked((str(build.path), *args, "--list-devices"), environment).partition("vailable devices:")[2]
    else:
        return ()
    return tuple(parse_listing(text))


def _answered(build: Build, environment: Mapping[str, str], args: Sequence[str]) -> tuple[Listed, ...] | EngineError:
    try:
        return _ask_devices(build, environment, args)
    except EngineError as error:
        return error


def backends(build: Build) -> tuple[str, ...]:
    """The GPU backends that lie as libraries beside `build`."""
    return backends_in({path.parent for path in (build.path, *build.libraries)})


def _read(path: Path) -> Build:
    return Build(PROGRAM, path, _version(asked((str(path), "--version"))), _flags(path), _libraries(path))


def _version(text: str) -> str:
    """`b11434` from a numbered build, else the version it calls itself. Raises ValueError when it is no llama.cpp."""
    match = re.search(r"version: (\S+)(?: \((?:build (\d+), commit )?([0-9A-Za-z]+)\))?", text)
    if match is None:
        return "of unknown version"
    number = match[2] if match[2] is not None else match[1]
    return f"b{number}" if number.isdigit() and int(number) else match[1]


def _flags(path: Path) -> dict[str, int]:
    return _flags_of(path, asked((str(path), "--help")))


def _flags_of(path: Path, help_text: str) -> dict[str, int]:
    found = flags_in(help_text)
    if not {"--model", "--host"} <= found.keys():
        raise EngineError(
            f"{path} is no llama-server: its --help does not list --model and --host",
            hint="set `executable` to llama.cpp's llama-server, or to `embedded`",
            executable=str(path),
        )
    return found


def flags_in(help_text: str) -> dict[str, int]:
    """The flags that llama-server's `--help` lists, each with the number of values that follow it."""
    found: dict[str, int] = {}
    for line in help_text.splitlines():
        match = re.match(r"(?P<names>-{1,2}[A-Za-z0-9][\w.-]*(?:, *-{1,2}[A-Za-z0-9][\w.-]*)*)(?P<rest>.*)", line)
        if match is None:
            continue
        value = re.match(r" (\S.*?)(?:  |$)", match["rest"])
        words = value[1] if value else ""
        count = 2 if re.fullmatch(r"[A-Z]+ [A-Z]+", words) else int(bool(words))
        found.update((name.strip(), count) for name in match["names"].split(","))
    return found


def _libraries(program: Path) -> tuple[Path, ...]:
    """The shared libraries of llama.cpp next to `program`; `program` itself when it is linked statically."""
    for folder in (program.parent, program.parent.parent / "lib", program.parent.parent / "lib64"):
        names = (path for path in folder.glob("libllama.*") if ".so" in path.name or path.suffix == ".dylib")
        found = sorted({path.resolve() for path in names})
        if found:
            return tuple(found)
    return (program,)


def asked(argv: tuple[str, ...], environment: Mapping[str, str] | None = None) -> str:
    """What the program says on both outputs. Raises EngineError when it fails or takes too long."""
    hint = "run it by hand to see what is wrong, or use `executable: embedded`"
    words = " ".join(argv[:1] + argv[-1:]) if argv[-1].startswith("--") else argv[0]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(_environment({}) if environment is None else environment),
            timeout=ASK_WITHIN_S,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise EngineError(f"{words} said nothing within {ASK_WITHIN_S:.0f} s", hint=hint) from exc
    except OSError as exc:
        raise EngineMissing(f"{argv[0]} cannot be run: {exc.strerror}", hint=hint) from exc
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        last = text.strip().splitlines()[-1:] or ["(no output)"]
        raise EngineError(f"{words} failed with exit code {done.returncode}: {last[0]}", hint=hint)
    return text


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what llama.cpp would take for flags, which no engine of ours gets to see either."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")} | dict(more)


_lock = threading.RLock()
_asking: dict[tuple[Stamp, str], threading.RLock] = {}  # one of them held while a build is asked, so that it is once
_memory: dict[tuple[Stamp, str], object] = {}


def kept(path: Path, what: str, make: Callable[[Path], T], *, afresh: bool = False) -> T:
    """`make(path)`, remembered under `what` until the file's size or time of change differs, or one wants it anew."""
    status = path.stat()
    key = ((str(path), status.st_mtime_ns, status.st_size), what)
    with _lock:
        asking = _asking.setdefault(key, threading.RLock())
    with asking:  # who asks something else does not wait for a driver that hangs
        if afresh or key not in _memory:
            _memory[key] = make(path)
        return _memory[key]  # type: ignore[return-value]
