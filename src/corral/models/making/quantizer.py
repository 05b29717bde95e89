"""llama.cpp's own `llama-quantize`: found, asked for its types, and run with progress. Everything blocks."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral.config.nearest import did_you_mean
from corral.errors import CallerError, EngineError, EngineMissing
from corral.lazy_dataclass import dataclass

PROGRAM: Final = "llama-quantize"
ASK_WITHIN_S: Final = 30.0
_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_TYPE: Final = re.compile(r"^ *(\d+) +or +([A-Za-z0-9_]+) *: *(.*)$", re.MULTILINE)
_VERSION: Final = re.compile(r"^version: (.+)$|^main: build = (.+)$", re.MULTILINE)
_TENSOR: Final = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_SIZE: Final = re.compile(r"^.*\b(model|quant) size += +([0-9.]+) (?:MiB|MB)", re.MULTILINE)
_FAILED: Final = re.compile(r"failed to quantize: (.+)$", re.MULTILINE)
_KEPT_BYTES: Final = 64 << 10

Step = Callable[[int, int], None]
_SPELLING: Final = re.compile(
    r"(?:I?Q[1-8]_[A-Z0-9_]{1,8}|TQ[12]_0|B?F16|F32|MXFP4(?:_MOE)?|NVFP4|COPY)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Type:
    """One type that the tool can write."""

    name: str
    about: str  # in the tool's words


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a quantization would come to, by the tool's own count."""

    bytes: int
    needs_imatrix: bool
    notes: tuple[str, ...] = ()


class Refused(Exception):
    """The tool ended with an error; the message is its own reason."""


@dataclass(frozen=True, slots=True)
class Quantizer:
    """One `llama-quantize`, asked what it can do."""

    path: Path
    version: str
    types: tuple[Type, ...]

    def __str__(self) -> str:
        return f"{PROGRAM} {self.version}"

    def forecast(self, source: Path, to: str, *, requantize: bool) -> Forecast:
        """What `run` would make, without making it. Raises Refused, EngineError."""
        text = self._go(["--dry-run", *_flags(requantize, None), str(source), to], lambda done, total: None)
        sizes = {found[0]: float(found[1]) for found in _SIZE.findall(text)}
        if "quant" not in sizes:
            raise EngineError(f"{self.path} did not say how large the model would be", hint="use a newer llama.cpp")
        fell_back = re.search(r"WARNING: (\d+ of \d+ tensor\(s\) required fallback quantization)", text)
        notes = (f"{fell_back[1]}: their rows are not divisible as {to} wants",) if fell_back else ()
        return Forecast(round(sizes["quant"] * (1 << 20)), "will require an imatrix" in text, notes)

    def run(
        self,
        source: Path,
        target: Path,
        to: str,
        step: Step,
        *,
        threads: int | None = None,
        imatrix: Path | None = None,
        requantize: bool = False,
    ) -> None:
        """Writes `target`. `step` is told tensors done and in all, several times a second; what it raises ends the
        tool. Raises Refused."""
        words = [*_flags(requantize, imatrix), str(source), str(target), to]
        self._go([*words, str(threads)] if threads is not None else words, step)

    def _go(self, words: Sequence[str], step: Step) -> str:
        text, code = _run([str(self.path), *words], step)
        if code:
            said = _FAILED.findall(text)
            last = said[-1] if said else (text.strip().splitlines() or ["it said nothing"])[-1]
            raise Refused(last.strip())
        return text


def find(program: str = "auto", built: Path | None = None) -> Quantizer:
    """The tool that lies beside the `llama-server` which `program` means, else on PATH, else under `built`, where
    engines that Corral builds are. Raises EngineMissing when there is none, EngineError when it is something else."""
    for place in _places(program, built):
        if place.is_file() and os.access(place, os.X_OK):
            return _ask(place)
    raise EngineMissing(
        f"there is no {PROGRAM} here",
        hint="it comes with llama.cpp (the embedded engine has none): corral engine install llama.cpp   (or name a "
        "llama-server that is here as `executables: {llama.cpp: /path/to/llama-server}`)",
    )


def check_type(tool: Quantizer, to: str) -> str:
    """The tool's own spelling of `to`, an alias resolved. Raises CallerError."""
    names = {each.name.casefold(): each.name for each in tool.types}
    if to.casefold() not in names:
        hint = did_you_mean(to, names.values(), "`corral quantize --list` shows what there is")
        raise CallerError(f"llama.cpp has no type {to[:40]!r}", hint=hint, param="to")
    about = {each.name: each.about for each in tool.types}
    name = names[to.casefold()]
    alias = re.fullmatch(r"alias for (\w+)", about[name])
    return alias[1] if alias is not None and alias[1] in about else name


def check_spelling(to: str) -> None:
    """Of a type, where no tool is here to ask: whether any llama.cpp has one that is written so. Raises CallerError."""
    if _SPELLING.fullmatch(to) is None:
        raise CallerError(f"llama.cpp has no type {to[:40]!r}", hint="such as Q4_K_M, Q8_0 or F16", param="to")


def _places(program: str, built: Path | None) -> list[Path]:
    places = []
    server = shutil.which("llama-server" if program in ("auto", "embedded") else program)
    if server is not None:
        places.append(Path(server).resolve().with_name(PROGRAM))
        places.append(Path(server).with_name(PROGRAM))
    if (found := shutil.which(PROGRAM)) is not None:
        places.append(Path(found))
    if built is not None:
        servers = sorted(built.glob("*/bin/llama-server"), reverse=True)
        places += [each.resolve().with_name(PROGRAM) for each in servers]
    return places


def _ask(path: Path) -> Quantizer:
    text, _ = _run([str(path), "--help"], lambda done, total: None)  # it ends with 1
    types = [Type(name, about.strip()) for _, name, about in _TYPE.findall(text)]
    if not types or "--dry-run" not in text:
        raise EngineError(f"{path} is no {PROGRAM} that Corral can use", hint="install a newer llama.cpp")
    # Numbered builds say who they are only when they work on something, this one's server always.
    version = _VERSION.search(text) or _version_of(path.with_name("llama-server"))
    named = (version[1] or version[2]).strip() if version else "of unknown version"
    return Quantizer(path, named, tuple({each.name: each for each in types}.values()))


def _version_of(server: Path) -> re.Match[str] | None:
    return _VERSION.search(_run([str(server), "--version"], lambda done, total: None)[0]) if server.is_file() else None


def _flags(requantize: bool, imatrix: Path | None) -> list[str]:
    return [
        *(["--allow-requantize"] if requantize else []),
        *(["--imatrix", str(imatrix)] if imatrix is not None else []),
    ]


def _run(argv: Sequence[str], step: Step) -> tuple[str, int]:
    """The last words of a tool on both outputs, and its exit code. Its group is gone when this returns or raises."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        tool = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise EngineMissing(f"{argv[0]} cannot be run: {error.strerror}", hint="install llama.cpp again") from error
    assert tool.stdout is not None
    try:
        return _read(tool.stdout.fileno(), step), tool.wait(ASK_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{argv[0]} closed its output and does not end", hint="try again") from error
    finally:
        if tool.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(tool.pid, signal.SIGKILL)
            tool.wait()
        tool.stdout.close()


def _read(fd: int, step: Step) -> str:
    """Until the end. A line is told of as soon as it begins: a large tensor's takes a minute to end."""
    kept, done, total = b"", 0, 0
    while True:
        step(done, total)  # in silence too, so that it can be ended at any time
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        if not (piece := os.read(fd, 1 << 16)):
            return kept.decode(errors="replace")
        kept = (kept + piece)[-_KEPT_BYTES:]
        if found := _TENSOR.findall(kept):
            done, total = int(found[-1][0]), int(found[-1][1])
