"""pip's and venv's command lines, and what their output means."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import Final

from corral.environments.child import Children, Ended, Say, Step
from corral.errors import CorralError, DiskFull, InstallFailed

_COLLECTED: Final = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) (\S+)")
_FETCHED: Final = re.compile(r"^  (?:Downloading|Using cached) (\S+)(?: \(([^)]+)\))?")
_NOWHERE_ELSE: Final = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_FIND_LINKS": "",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_INDEX_URL": "",
}
_FULL: Final = re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b")
_CHANGED: Final = re.compile(r"^ *(\S+?)(?: from \S+)?(?: \(from .*\))?:$")
_UNMET: Final = re.compile(r" requires | has requirement ")
_ABSENT: Final = re.compile(r"No matching distribution found for ([^\s;]+)")
_UNREACHED: Final = re.compile(r"after connection broken by|Failed to connect to")


def command(folder: Path) -> list[str | Path]:
    """pip's command line for the environment `folder`: that of our own Python where it has one that can work on others.

    Putting one into each environment would take seconds of every installation.
    """
    if _own_pip():
        return [sys.executable, "-I", "-m", "pip", "--python", folder / "bin" / "python"]
    return [folder / "bin" / "python", "-I", "-m", "pip"]


def _own_pip() -> bool:
    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
        return (int(major), int(minor)) >= (22, 3)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def new_environment(children: Children, python: Path, folder: Path) -> None:
    """Makes an empty virtual environment for `command`. Raises InstallFailed, DiskFull."""
    ended = children.run([python, "-I", "-m", "venv", *(["--without-pip"] if _own_pip() else []), folder])
    if ended.code:
        words = "a virtual environment cannot be made"
        raise failed(
            ended, words, children.log, "install the Python's venv module (Debian: apt-get install python3-venv)"
        )


def install(children: Children, folder: Path, lock: Path, count: int, wheels: Path | None, hint: str, say: Say) -> None:
    """Puts what `lock` lists into the environment `folder`, each file checked against its hash; with `wheels` only from
    there, whatever pip's configuration has."""
    argv = [*command(folder), "install", "--no-deps", "--require-hashes"]
    argv += ["--only-binary", ":all:", "-r", lock]
    if wheels is not None:
        argv += ["--no-index", "--find-links", wheels]
    seen, installing = 0, False
    packages = next(iter(sorted((folder / "lib").glob("python*/site-packages"))), folder)
    before = _installed(packages)

    def line(text: str) -> None:
        nonlocal seen, installing
        if (name := collected(text)) is not None:
            seen += 1
            say(Step("downloading", name, seen, count))
        elif (match := _FETCHED.match(text)) is not None:
            size = f" ({match[2]})" if match[2] else ""
            say(Step("downloading", match[1].partition("-")[0].rpartition("/")[2] + size, seen, count))
        elif text.startswith("Installing collected packages"):
            installing = True

    def tick() -> None:
        if installing:
            say(Step("installing", "", min(count, _installed(packages) - before), count))

    ended = children.run(argv, line=line, tick=tick, more=_NOWHERE_ELSE if wheels is not None else {})
    if ended.code:
        raise failed(ended, "pip could not install everything", children.log, hint)


def check(children: Children, folder: Path, without: frozenset[str]) -> None:
    """Raises InstallFailed when something in the environment lacks what it requires, other than `without`."""
    ended = children.run([*command(folder), "check"])
    if ended.code == 0:
        return
    wrong = [text for text in ended.lines if _UNMET.search(text) and not any(f" {name}" in text for name in without)]
    if wrong:
        raise InstallFailed(
            f"what was installed does not fit together: {wrong[0].rstrip('.')}",
            hint="add what is missing to the folder, in the version that is wanted",
            log_tail=wrong,
        )


def collected(text: str) -> str | None:
    """The requirement that pip says it has come to."""
    match = _COLLECTED.match(text)
    return None if match is None else match[1].rpartition("/")[2]


def failed(ended: Ended, what: str, log: Path, hint: str = "") -> CorralError:
    """What to raise for a child that ended with an error, from its last words."""
    tail = list(ended.lines[-12:])
    text = "\n".join(ended.lines)
    if _FULL.search(text):
        return DiskFull(f"{what}: the disk is full", hint=f"make room where {log.parent} is, then try again")
    if "DO NOT MATCH THE HASHES" in text:
        after = text.partition("DO NOT MATCH THE HASHES")[2].splitlines()
        names = [match[1] for each in after if (match := _CHANGED.match(each)) is not None and "==" in match[1]]
        return InstallFailed(
            f"{names[0] if names else 'a package'} from the index is not the file that is locked: its hash differs",
            hint="nothing of it was installed; see which index pip uses: pip config list",
            log_tail=tail,
        )
    if _UNREACHED.search(text):  # pip goes on as if it were empty, and says so at last
        return InstallFailed(
            f"{what}: an index cannot be reached",
            hint="see to the network, or which index pip uses (pip config list); without one, --wheels DIR takes a "
            "folder of wheels",
            log_tail=tail,
        )
    if (absent := _ABSENT.search(text)) is not None:
        return InstallFailed(
            f"the index has no {absent[1]} for this Python and machine",
            hint=hint or "see which index pip uses (pip config list), or name another Python with --python",
            log_tail=tail,
        )
    how = f"exit code {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"
    errors = [each.removeprefix("ERROR: ") for each in ended.lines if each.startswith("ERROR: ")]
    said = f": {errors[0]}" if errors else ""
    return InstallFailed(f"{what} ({how}){said}", hint=f"its words are in {log}", log_tail=tail)


def _installed(packages: Path) -> int:
    return sum(1 for _ in packages.glob("*.dist-info/RECORD"))
