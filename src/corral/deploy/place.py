"""The folder that a deployment is written to, and the memory of what was written there."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from corral.config.atomic import replace_file
from corral.deploy.deployment import Deployment, File
from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass

MEMORY: Final = ".corral-deploy.json"
"""The hashes of what was written, by path: so that what somebody changed since is known from what we made."""

How = Literal["new", "updated", "same", "overwritten", "removed"]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one path. `removed`: an earlier version made it, and it is no longer part of the target."""

    path: Path
    how: How


def write(folder: Path, deployment: Deployment, *, force: bool = False) -> list[Written]:
    """Writes all files, or none: where one that should be written was changed since, or is somebody else's, it raises
    ConfigError with their names, unless `force` says to overwrite them."""
    known = _remembered(folder, deployment.target)
    found = {file.path: _look(folder / file.path) for file in deployment.files}
    wanted = {file.path: file.text for file in deployment.files}
    foreign = [
        path
        for path, text in found.items()
        if text is not None and text != wanted[path] and _hash(text) != known.get(path)
    ]
    if foreign and not force:
        many = len(foreign) > 1
        raise ConfigError(
            f"{', '.join(foreign)} in {folder} {'were' if many else 'was'} changed, or not written by this command",
            hint="write to another folder with --out, or overwrite with --force; nothing was written",
            files=foreign,
        )
    done = [_put(folder, file, found[file.path], file.path in foreign) for file in deployment.files]
    done += _remove_old(folder, known, {file.path for file in deployment.files})
    record = {"target": deployment.target, "files": {file.path: _hash(file.text) for file in deployment.files}}
    replace_file(folder / MEMORY, json.dumps(record, indent=2) + "\n", 0o644)
    return done


def _put(folder: Path, file: File, before: str | None, foreign: bool) -> Written:
    path = folder / file.path
    if before == file.text:
        return Written(path, "same")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # readable by others, as umask allows: they are for them
    except OSError as error:
        raise ConfigError(
            f"cannot make {path.parent}: {error.strerror}", hint="choose another folder: --out"
        ) from error
    replace_file(path, file.text, file.mode)
    return Written(path, "new" if before is None else "overwritten" if foreign else "updated")


def _remove_old(folder: Path, known: dict[str, str], kept: set[str]) -> list[Written]:
    """Takes away what an earlier version of the target made, unless it was changed: a dashboard left there is shown."""
    gone = []
    for path, digest in known.items():
        inside = (folder / path).resolve().is_relative_to(folder.resolve())
        if path not in kept and inside and (text := _look(folder / path)) is not None and _hash(text) == digest:
            with suppress(OSError):
                (folder / path).unlink()
                gone.append(Written(folder / path, "removed"))
    return gone


def _remembered(folder: Path, target: str) -> dict[str, str]:
    try:
        record = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
        if record["target"] != target:
            raise ConfigError(
                f"{folder} holds the files of another target, {record['target']}", hint="choose another folder: --out"
            )
        return {str(path): str(digest) for path, digest in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _look(path: Path) -> str | None:
    """The text that is there; None where nothing is. Raises ConfigError for what is no file, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="choose another folder: --out") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
