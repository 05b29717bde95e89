"""Control groups, with which Linux bounds what a process and all its children take: found, made, entered, removed.

Both kinds: version 2, where this process was given a part of the tree (systemd's `Delegate=yes`), and version 1, where
the folders of the memory and pids controllers may be written (root). Everything blocks, for microseconds.

Source: Linux, admin-guide/cgroup-v2.rst and cgroup-v1/{memory,pids}.rst.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral.lazy_dataclass import dataclass

CONTROLLERS: Final = ("memory", "pids")
MOUNT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")
_SERVER: Final = "corral-server"
_PASSES: Final = 20
"""How often a process's children are looked for that were forked while it was moved."""


class NotPermitted(Exception):
    """Why there are no limits here, in words."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Where groups may be made: the folder of each controller; with version 2 they are the same one."""

    version: int
    folders: Mapping[str, Path]

    def group(self, name: str) -> Group:
        """The group `corral-<name>`, made or not."""
        safe = _NAME.sub("_", name)[:80]
        safe += "" if safe == name else f"-{short(name)}"
        folders = {each: folder / f"corral-{safe}" for each, folder in self.folders.items()}
        return Group(self.version, folders)


@dataclass(frozen=True, slots=True)
class Group:
    """One group, with its folder for each controller."""

    version: int
    folders: Mapping[str, Path]

    def make(self, memory_bytes: int, pids: int) -> None:
        """Makes it, or changes its limits. Raises NotPermitted."""
        try:
            for folder in self._each():
                folder.mkdir(exist_ok=True)
            memory, tasks = self.folders["memory"], self.folders["pids"]
            if self.version == 2:
                (memory / "memory.max").write_text(str(memory_bytes))
                _try_write(memory / "memory.swap.max", "0")
            else:
                # The second counts swap too, where the kernel does; it is never below the first.
                _try_write(memory / "memory.memsw.limit_in_bytes", "-1")
                (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
                _try_write(memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
            (tasks / "pids.max").write_text(str(pids))
        except OSError as error:
            self.remove()
            raise NotPermitted(f"{error.filename}: {error.strerror}") from error

    def take(self, pid: int, family: Callable[[int], list[int]]) -> None:
        """Moves `pid` and all that descend from it into the group: the parents first, whose later children are born in
        it. Raises NotPermitted; ProcessLookupError when it has ended."""
        for _ in range(_PASSES):
            for folder in self._each():
                inside = self._inside(folder)
                for each in (wanted := family(pid)):
                    if each in inside:
                        continue
                    try:
                        (folder / "cgroup.procs").write_text(str(each))
                    except ProcessLookupError:
                        if each == pid:
                            raise
                    except OSError as error:
                        raise NotPermitted(f"{folder}/cgroup.procs: {error.strerror}") from error
            if all(self._holds(family(pid), folder) for folder in self._each()) and wanted:
                return
        raise NotPermitted(f"process {pid} forks faster than it can be moved")

    def hit(self) -> bool:
        """Whether the kernel has ended something in it for its memory limit."""
        return has_hit(self.folders["memory"])

    def remove(self) -> bool:
        """Whether it is gone; one with processes in it stays."""
        for folder in self._each():
            with suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self._each())

    def _each(self) -> list[Path]:
        return list(dict.fromkeys(self.folders.values()))

    def _holds(self, family: list[int], folder: Path) -> bool:
        """Whether all of `family` are in it, but for those that have ended and were not waited for: no group lists
        them, and they cannot be moved."""
        inside = self._inside(folder)
        return all(each in inside or _has_ended(each) for each in family)

    def _inside(self, folder: Path) -> set[int]:
        try:
            return {int(line) for line in (folder / "cgroup.procs").read_text().split()}
        except OSError as error:
            raise NotPermitted(f"{folder}/cgroup.procs: {error.strerror}") from error


def _has_ended(pid: int) -> bool:
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return not state or state[0] in "ZX"


def has_hit(folder: Path) -> bool:
    """Whether the kernel has ended something in the group with that folder for its memory limit."""
    for name in ("memory.events", "memory.oom_control"):
        with suppress(OSError):
            text = (folder / name).read_text()
            if (found := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)) is not None:
                return int(found[1]) > 0
    return False


def memory_folder(pid: int, mount: Path = MOUNT) -> Path | None:
    """The folder of the group that bounds the memory of `pid`, whoever made it; None where it cannot be told."""
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        number, names, path = line.split(":", 2)
        top = mount / "memory" if "memory" in names.split(",") else mount if number == "0" and not names else None
        if top is not None and (folder := top / path.lstrip("/")).is_dir() and (top / "cgroup.procs").exists():
            return folder
    return None


def find(mount: Path = MOUNT, own: Path = OWN, *, trying: bool = True) -> Tree:
    """Where this process may make groups with limits: tried by making one, or only looked at. Raises NotPermitted."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError as error:
        raise NotPermitted("this system has no control groups") from error
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    unified = next((path for number, names, path in lines if number == "0" and not names), None)
    if set(CONTROLLERS) <= paths.keys():
        tree = Tree(1, {name: _folder(mount / name, paths[name]) for name in CONTROLLERS})
    elif unified is not None:
        tree = Tree(
            2, dict.fromkeys(CONTROLLERS, _delegated(_folder(mount, unified.removesuffix(f"/{_SERVER}")), trying))
        )
    else:
        raise NotPermitted("the kernel has no memory and pids controllers for this process")
    if closed := [each for each in tree.folders.values() if not os.access(each, os.W_OK)]:
        raise NotPermitted(f"{closed[0]} belongs to somebody else")
    if trying:
        trial = tree.group(f"trial-{os.getpid()}")
        trial.make(1 << 30, 100)
        trial.remove()
    return tree


def short(text: str) -> str:
    """A few letters that stand for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _folder(mount: Path, path: str) -> Path:
    """A group's folder; in a container the path may be the host's, and the mount is then the group itself."""
    folder = mount / path.lstrip("/")
    return folder if folder.is_dir() else mount


def _delegated(folder: Path, changing: bool) -> Path:
    """`folder` once groups in it have the controllers. Only then may it have processes of its own no longer, so they
    are moved into a group of their own if they are all this user's to move: of this session or service alone."""
    try:
        if set(CONTROLLERS) <= set((folder / "cgroup.subtree_control").read_text().split()):
            return folder
        missing = set(CONTROLLERS) - set((folder / "cgroup.controllers").read_text().split())
    except OSError as error:
        raise NotPermitted(f"{folder}: {error.strerror}") from error
    if missing:
        raise NotPermitted(f"{folder} was not given the controllers {', '.join(sorted(missing))}")
    if not os.access(folder / "cgroup.subtree_control", os.W_OK):
        raise NotPermitted(f"{folder} belongs to somebody else; run Corral as a service with Delegate=yes")
    if not _all_ours(folder):
        raise NotPermitted(
            f"{folder} has processes that are not Corral's; run Corral as a service with Delegate=yes, or by "
            "`systemd-run --user --scope -p Delegate=yes corral serve`"
        )
    if not changing:
        return folder
    try:
        server = folder / _SERVER
        server.mkdir(exist_ok=True)
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (server / "cgroup.procs").write_text(pid)
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in CONTROLLERS))
    except OSError as error:
        raise NotPermitted(f"{folder}: {error.strerror}") from error
    return folder


def _all_ours(folder: Path) -> bool:
    """Whether every process in the group is this one, a descendant of it, or a warden with what it started."""
    wanted = str(os.getpid())
    for pid in (folder / "cgroup.procs").read_text().split():
        at = pid
        while at not in ("0", "1", wanted):
            status = _read(Path(f"/proc/{at}/status"))
            if re.search(r"^Name:\tcorral-warden$", status, re.MULTILINE):
                break
            parent = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
            at = parent[1] if parent is not None else "0"
        if at in ("0", "1"):
            return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _try_write(path: Path, text: str) -> None:
    with suppress(OSError):  # the kernel does not count swap, or there is none
        path.write_text(text)
