"""Following the links that others made: to a regular file, and never to where their maker might have no business.

A directory that belongs to somebody else may hold a link to a private file of the user who runs Corral. Read, imported
and pushed, it would be published. So a link may lead out of its directory only when that user, or root, made it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from corral.errors import ModelFileError

MAX_LINKS: Final = 40
MAX_ENTRIES: Final = 200_000
MAX_DEPTH: Final = 10


def followed(path: Path, root: Path) -> tuple[Path, int]:
    """`(real path, size)` of the regular file that `path`, which lies under `root`, leads to.

    Raises ModelFileError when there is none that may be used.
    """
    try:
        real, trusted = _resolve(path.relative_to(root), root.resolve(strict=True))
        status = real.stat()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} is missing", hint="the other tool's download did not finish") from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"{path} cannot be read: {reason}", hint=f"check who may read {path.parent}") from error
    if not trusted:
        raise ModelFileError(
            f"{path} is another user's link to {real}, outside {root}", hint="import the file it leads to yourself"
        )
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is not a regular file", hint="only files can be imported")
    return real, status.st_size


def _resolve(relative: Path, root: Path) -> tuple[Path, bool]:
    """Where `relative` leads from `root`, a real directory, and whether no stranger's link takes it out of there."""
    at, waiting, trusted, links = root, list(reversed(relative.parts)), True, 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            at = at.parent
            continue
        here = at / part
        status = here.lstat()
        if not stat.S_ISLNK(status.st_mode):
            at = here
            continue
        links += 1
        if links > MAX_LINKS:
            raise RuntimeError("too many links")
        target = here.readlink()
        waiting.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        at = Path(target.anchor) if target.is_absolute() else at
        if status.st_uid not in (0, os.getuid()):
            end = here.resolve(strict=True)
            trusted = trusted and end.is_relative_to(root)
    return at, trusted


def files_under(root: Path, *, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Every file under `root`, sorted within its directory; linked directories are entered once, hidden ones never.

    Bounded: at most MAX_ENTRIES entries are looked at. What cannot be read is passed over.
    """
    seen: set[tuple[int, int]] = set()
    left = MAX_ENTRIES
    waiting = [(root, 0)]
    while waiting:
        folder, level = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        below = []
        for entry in entries:
            left -= 1
            if left < 0:
                return
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:
                continue
            if not is_folder:
                yield Path(entry.path)
            elif level < depth:
                below.append((Path(entry.path), level + 1))
        waiting.extend(reversed(below))


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a small regular file. Raises ModelFileError when it is larger than `limit`, or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelFileError(f"{path} is not a regular file", hint="it should be a small text")
            data = file.read(limit + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}", hint=f"check who may read {path}") from error
    if len(data) > limit:
        raise ModelFileError(f"{path} has more than {limit} bytes", hint="it is damaged, or not what it is named")
    return data
