"""Running pip and Python as child processes: their output line by line, and an end to them whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral.errors import InstallFailed
from corral.lazy_dataclass import dataclass

_TICK_S: Final = 0.2
_KEPT_LINES: Final = 60
_ENDS_WITHIN_S: Final = 10.0
# What would have pip put things elsewhere, or do something else; the index and everything else stays the user's.
_NOT_FOR_PIP: Final = frozenset(
    f"PIP_{name}"
    for name in (
        "TARGET", "PREFIX", "ROOT", "PYTHON", "REQUIREMENT", "CONSTRAINT", "DRY_RUN", "REPORT", "EDITABLE", "PRE",
        "IGNORE_INSTALLED", "UPGRADE", "NO_DEPS", "QUIET", "VERBOSE", "NO_BINARY", "ONLY_BINARY", "LOG",
        "REQUIRE_VIRTUALENV",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """How far an installation is."""

    phase: str  # one word or two: it changes seldom
    text: str = ""  # what it is at
    done: int = 0
    total: int = 0


Say = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    code: int
    lines: tuple[str, ...]  # its last ones


@dataclass(frozen=True, slots=True)
class Children:
    """Starts children that all write to one log and hold one lock: while any of them lives, nobody else takes over what
    they write, even when this process was killed."""

    log: Path
    lock: int
    scratch: Path  # where they put temporary files: on the disk that they install to

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        line: Callable[[str], None] = lambda text: None,
        tick: Callable[[], None] = lambda: None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        """Runs it to its end, with `more` in its environment. `line` gets each line of its output, `tick` is called
        several times a second; whatever either raises, or a signal does, ends the child first."""
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self.scratch.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as log:
            try:
                child = subprocess.Popen(
                    [str(each) for each in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**environment(os.environ, self.scratch), **more},
                    pass_fds=(self.lock,),
                    start_new_session=True,  # Ctrl-C is ours to answer
                    bufsize=0,
                )
            except OSError as error:
                raise InstallFailed(
                    f"{argv[0]} cannot be run: {error.strerror}", hint="name another Python with --python"
                ) from error
            assert child.stdout is not None
            try:
                for text in _lines(child.stdout.fileno(), tick):
                    log.write(text.encode(errors="replace") + b"\n")
                    kept.append(text)
                    line(text)
                return Ended(child.wait(), tuple(kept))
            finally:
                _end(child)
                child.stdout.close()


def environment(ours: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What a child gets of `ours`: pip's configuration, proxies and all, but nothing that moves its results."""
    kept = {
        name: value
        for name, value in ours.items()
        if name not in _NOT_FOR_PIP and not name.startswith("PYTHON") and name != "VIRTUAL_ENV"
    }
    return kept | {
        "TMPDIR": str(scratch),
        "PIP_USER": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONUNBUFFERED": "1",
    }


def _lines(descriptor: int, tick: Callable[[], None]) -> Iterator[str]:
    """The lines that come, until everybody has closed the other end."""
    rest = b""
    while True:
        tick()
        if not select.select([descriptor], [], [], _TICK_S)[0]:
            continue
        if not (piece := os.read(descriptor, 1 << 16)):
            break
        *whole, rest = (rest + piece).split(b"\n")
        for each in whole:
            yield each.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            break
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_ENDS_WITHIN_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what it may have left
