"""Memory: of the machine, and of the control group this process is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from corral.lazy_dataclass import dataclass

_NO_LIMIT = 1 << 60
"""cgroup v1 writes "no limit" as the largest multiple of a page that fits; anything this large is none."""


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. `available_bytes` already respects the limit, if there is one."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    limit_from: str | None = None  # the file that sets the limit
    source: str = "/proc/meminfo"

    @property
    def usable_bytes(self) -> int:
        """What this process and its children may have at most."""
        return self.total_bytes if self.limit_bytes is None else min(self.total_bytes, self.limit_bytes)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: what is mounted (`root` of the file system), where, and its kind."""

    root: str
    point: str
    kind: str
    options: frozenset[str]


def parse_meminfo(text: str) -> dict[str, int]:
    """`/proc/meminfo` in bytes by name; lines of another form are left out."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name.strip()] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def parse_mountinfo(text: str) -> list[Mount]:
    """`/proc/self/mountinfo`. Source: proc(5), the optional fields end at a lone hyphen."""
    mounts = []
    for line in text.splitlines():
        before, hyphen, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if hyphen and len(left) >= 6 and len(right) >= 3:
            mounts.append(Mount(_unescape(left[3]), _unescape(left[4]), right[0], frozenset(right[2].split(","))))
    return mounts


def _unescape(path: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path


def parse_cgroups(text: str) -> dict[str, str]:
    """`/proc/self/cgroup` as path by controller; the unified hierarchy (v2) has the empty name."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if colon:
            found.update(dict.fromkeys(names.split(","), path))
    return found


def parse_limit(text: str) -> int | None:
    """A limit's file: a count of bytes, or None for none (`max`, or a count beyond any machine)."""
    word = text.strip()
    return int(word) if word.isdecimal() and int(word) < _NO_LIMIT else None


def cgroup_directories(cgroups: str, mountinfo: str, controller: str) -> list[PurePosixPath]:
    """The directories, innermost first, whose files bind this process for `controller`, in whichever version has it.

    In a container the group's path is often the host's and not to be seen here: then only the mount's top remains.
    """
    paths, mounts = parse_cgroups(cgroups), parse_mountinfo(mountinfo)
    found: list[PurePosixPath] = []
    for name, kind in ((controller, "cgroup"), ("", "cgroup2")):
        if name not in paths:
            continue
        for mount in mounts:
            if mount.kind == kind and (kind == "cgroup2" or controller in mount.options):
                found += _upwards(paths[name], mount)
                break
    return found


def _upwards(path: str, mount: Mount) -> Iterator[PurePosixPath]:
    top, inner = PurePosixPath(mount.point), PurePosixPath(path)
    if mount.root != "/" and inner.is_relative_to(mount.root):
        inner = PurePosixPath("/") / inner.relative_to(mount.root)
    if ".." in inner.parts:
        inner = PurePosixPath("/")
    while inner != PurePosixPath("/"):
        yield top / inner.relative_to("/")
        inner = inner.parent
    yield top


def read_memory(root: Path = Path("/")) -> Memory:
    """Of this process on Linux, seen through the files under `root`. Raises OSError where there is no /proc."""
    info = parse_meminfo((root / "proc/meminfo").read_text(encoding="ascii", errors="replace"))
    total, available = info.get("MemTotal", 0), info.get("MemAvailable", info.get("MemFree", 0))
    limit, source = None, None
    for directory in read_cgroup_directories(root, "memory"):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            found = parse_limit(_text(root, directory / limit_file))
            if found is None or found >= total:
                continue
            used = parse_limit(_text(root, directory / usage_file)) or 0
            cache = parse_stat(_text(root, directory / "memory.stat"))
            available = max(0, min(available, found - max(0, used - cache)))
            if limit is None or found < limit:
                limit, source = found, str(directory / limit_file)
    return Memory(total, available, limit, source)


def parse_stat(text: str) -> int:
    """The page cache in `memory.stat`, in bytes: what the kernel gives up before it refuses memory, mapped model files
    among it, as MemAvailable counts it outside of control groups."""
    found = dict(line.split(" ", 1) for line in text.splitlines() if line.count(" ") == 1)
    total = 0
    for name in ("inactive_file", "active_file"):
        value = found.get(f"total_{name}", found.get(name, "0"))
        total += int(value) if value.isdecimal() and value.isascii() else 0
    return total


def read_cgroup_directories(root: Path, controller: str) -> list[PurePosixPath]:
    """`cgroup_directories` of this process; empty where there are no control groups."""
    own = PurePosixPath("/proc/self")
    return cgroup_directories(_text(root, own / "cgroup"), _text(root, own / "mountinfo"), controller)


def _text(root: Path, path: PurePosixPath) -> str:
    try:
        return (root / path.relative_to("/")).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
