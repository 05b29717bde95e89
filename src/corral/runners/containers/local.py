"""What of this machine decides how containers can be run: subordinate ids, a first process, files that all may read."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

_INITS = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/libexec/catatonit/catatonit")


def owner() -> str:
    """Our own user and group, as a container engine writes them."""
    return f"{os.getuid()}:{os.getgid()}"


def has_subuids(root: Path = Path("/")) -> bool:
    """Whether root's containers can have user namespaces of their own: ids for the user `containers`."""
    return all(_names(root / "etc" / name, "containers") for name in ("subuid", "subgid"))


def _names(path: Path, user: str) -> bool:
    try:
        return any(line.startswith(f"{user}:") for line in path.read_text(errors="replace").splitlines())
    except OSError:
        return False


def has_init() -> bool:
    """Whether Podman finds a small first process to put before an engine."""
    return shutil.which("catatonit") is not None or any(Path(each).exists() for each in _INITS)


def readable_by_all(paths: Iterable[Path]) -> bool:
    """Whether any user may read those files, once they are mounted; of folders, also what lies in them."""
    for path in paths:
        try:
            mode = path.stat().st_mode
            inside = list(path.iterdir()) if stat.S_ISDIR(mode) else []
        except OSError:
            return False
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & needed != needed or not readable_by_all(inside):
            return False
    return True
