"""Which processes run a program of an environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def users(path: Path) -> list[tuple[int, str]]:
    """The id and command line of each process, of any server and by hand, that runs something below `path`."""
    marks = {f"{path}/", f"{path.resolve()}/"}
    return [(pid, words) for pid, words in _processes() if any(mark in words for mark in marks) and pid != os.getpid()]


def _processes() -> list[tuple[int, str]]:
    folder = Path("/proc")
    if not (folder / "self" / "cmdline").exists():
        return _by_ps()
    found = []
    for each in folder.iterdir():
        if each.name.isdigit():
            try:
                words = (each / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended, or is hidden
            found.append((int(each.name), words.replace(b"\0", b" ").decode(errors="replace").strip()))
    return found


def _by_ps() -> list[tuple[int, str]]:
    """Where there is no /proc (macOS)."""
    try:
        done = subprocess.run(
            ["ps", "-axww", "-o", "pid=,command="],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = (line.strip().partition(" ") for line in done.stdout.decode(errors="replace").splitlines())
    return [(int(pid), words) for pid, _, words in lines if pid.isdigit()]
