"""What a process and its descendants hold in memory, by the operating system's own count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def resident_bytes(pid: int) -> int | None:
    """Resident memory of `pid` and everything that descends from it; None when it has ended.

    Linux: RSS of a lone process. For several the sum of PSS, because what they share must not count twice. Pages of a
    mapped model file count as long as they are in memory. A few file reads; macOS: one run of `ps`, some 10 ms.
    """
    if sys.platform != "linux":
        return _by_ps(pid)
    pids = family(pid)
    if len(pids) == 1:
        return _rss(pid)
    sizes = [size for each in pids if (size := _pss(each) or _rss(each)) is not None]
    return sum(sizes) if sizes else None


def private_bytes(pid: int) -> int | None:
    """Of the resident memory of `pid` and its descendants, what is no file's: memory that only their end gives back.

    Pages of a mapped model file are not in it. None when it has ended, or where the platform does not tell.
    """
    sizes = [size for each in family(pid) if (size := _private(each)) is not None] if sys.platform == "linux" else []
    return sum(sizes) if sizes else None


def _private(pid: int) -> int | None:
    found = 0
    for line in (text := _text(Path(f"/proc/{pid}/status")) or "").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            found += int(line.split()[1]) * 1024
    return found if "RssAnon:" in text else None  # a zombie has no such line


def family(pid: int) -> list[int]:
    """`pid` and its descendants, as far as the kernel lists them."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        try:
            threads = list(Path(f"/proc/{each}/task").iterdir())
        except OSError:
            continue
        for thread in threads:
            todo += [int(child) for child in (_text(thread / "children") or "").split()]
    return found


def _rss(pid: int) -> int | None:
    text = _text(Path(f"/proc/{pid}/statm"))
    pages = int(text.split()[1]) if text else 0
    return pages * os.sysconf("SC_PAGE_SIZE") or None  # a zombie has no pages


def _pss(pid: int) -> int | None:
    for line in (_text(Path(f"/proc/{pid}/smaps_rollup")) or "").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace")
    except OSError:  # it ended meanwhile, or is not ours
        return None


def _by_ps(pid: int) -> int | None:
    """The same without /proc, by process group: an engine leads one of its own."""
    try:
        listed = subprocess.run(
            ["ps", "-axo", "pgid=,rss="], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split() for line in listed.splitlines()]
    sizes = [int(row[1]) * 1024 for row in rows if len(row) == 2 and row[0] == str(pid)]
    return sum(sizes) or None
