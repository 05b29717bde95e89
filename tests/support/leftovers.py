"""What a test left behind: file descriptors, child processes, tasks, and processes that name its directory."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

GRACE_S = 3.0
"""How long what is on its way out may take. Nothing waits when nothing is left."""

_PROC = Path("/proc/self/cmdline").exists()
_KERNEL_LISTS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()  # where it was built so

# Python's own: it lives as long as the process that used multiprocessing.
_EXEMPT_CHILDREN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass(frozen=True)
class Look:
    """Descriptors with what they point at, and children, at one moment."""

    descriptors: frozenset[tuple[int, str]]
    children: frozenset[int]


def look() -> Look:
    return Look(frozenset(_descriptors()), frozenset(child.pid for child in _children()))


def since(before: Look, grace_s: float = GRACE_S) -> list[str]:
    """What is here now and was not in `before`, in words, after it had time to go."""
    deadline = time.monotonic() + grace_s
    collected = False
    while True:
        left = [f"descriptor {fd} → {target}" for fd, target in sorted(_descriptors() - before.descriptors)]
        left += [f"child {_words(child)}" for child in _children() if child.pid not in before.children]
        if not left or time.monotonic() > deadline:
            return left
        if not collected:
            gc.collect()
            collected = True
        time.sleep(0.01)


async def tasks_since(before: set[asyncio.Task[object]], grace_s: float = GRACE_S) -> list[str]:
    """Tasks of this loop, the caller's own aside, that are not in `before`, after they had time to end."""
    deadline = time.monotonic() + grace_s
    while True:
        left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()} - before
        if not left or time.monotonic() > deadline:
            return [repr(task) for task in left]
        await asyncio.sleep(0.01)


def newest_process() -> str | None:
    """Changes with every process and thread that begins anywhere on this machine; None where the kernel does not tell.
    Where it is the same as before, nobody can have left a process behind."""
    try:
        with open("/proc/loadavg", "rb") as file:  # noqa: PTH123 - twice a test
            return file.read().split()[4].decode()
    except (OSError, IndexError):
        return None


def processes_naming(directory: Path, grace_s: float = GRACE_S) -> list[str]:
    """Living processes, detached ones included, with `directory` in their command line, after they had time to end.

    Those that are still there are ended, so that one test's fault stays its own.
    """
    deadline = time.monotonic() + grace_s
    while True:
        found = [process for process in _all_naming(str(directory)) if process.pid != os.getpid()]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    words = [_words(process) for process in found]
    for process in found:
        try:
            process.kill()
        except psutil.Error:
            continue
    return words


def _descriptors() -> set[tuple[int, str]]:
    directory = "/proc/self/fd" if Path("/proc/self/fd").is_dir() else "/dev/fd"
    found = set()
    for name in os.listdir(directory):  # noqa: PTH208 - called twice a test, and Path objects cost
        try:
            found.add((int(name), _target(directory, int(name))))
        except OSError:
            continue  # the one listdir itself had open
    return found


def _target(directory: str, fd: int) -> str:
    if directory == "/proc/self/fd":
        return os.readlink(f"{directory}/{fd}")  # noqa: PTH115
    seen = os.fstat(fd)
    return f"inode {seen.st_dev}:{seen.st_ino}"


def _children() -> list[psutil.Process]:
    return [child for child in map(_process, _child_pids()) if child is not None and not _exempt(child)]


def _child_pids() -> list[int]:
    """As psutil's `children()`, which looks at every process there is: too slow for twice a test."""
    if not _KERNEL_LISTS_CHILDREN:
        return [child.pid for child in psutil.Process().children()]
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{thread}/children", "rb") as file:  # noqa: PTH123
            found += map(int, file.read().split())
    return found


def _exempt(process: psutil.Process) -> bool:
    try:
        return any(name in part for part in process.cmdline() for name in _EXEMPT_CHILDREN)
    except psutil.Error:
        return False


def _all_naming(text: str) -> list[psutil.Process]:
    pids = [pid for pid in psutil.pids() if text in _command_line(pid)]
    return [found for found in map(_process, pids) if found is not None]


def _command_line(pid: int) -> str:
    try:
        if _PROC:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - for every process after every test
                return os.fsdecode(file.read())
        return "\0".join(psutil.Process(pid).cmdline())
    except (OSError, psutil.Error):
        return ""


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _words(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"{process.pid} (gone)"
