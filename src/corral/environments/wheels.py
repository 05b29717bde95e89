"""A folder of wheels as a lock: what they are, by their own hashes, and how much room they take."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Final

from corral.environments.child import Say, Step
from corral.environments.lock import Lock, Pin, lock_of, normalized
from corral.errors import CallerError

_CHUNK: Final = 4 << 20


def lock_in(folder: Path, say: Say) -> tuple[Lock, int]:
    """The lock of every wheel in `folder`, and the bytes they unpack to. Reads each of them whole.

    Raises CallerError when there is none, two versions of one, or a file that is no wheel.
    """
    files = sorted(each for each in folder.glob("*.whl") if each.is_file()) if folder.is_dir() else []
    if not files:
        raise CallerError(f"there are no wheels in {folder}", hint="give a folder with *.whl files", param="wheels")
    versions: dict[str, str] = {}
    hashes: dict[str, list[str]] = {}
    unpacked = 0
    for number, file in enumerate(files):
        say(Step("hashing wheels", file.name, number, len(files)))
        name, version = _named(file)
        if versions.setdefault(name, version) != version:
            raise CallerError(
                f"{folder} has two versions of {name}: {versions[name]} and {version}",
                hint="keep one of them there: everything in the folder is installed",
                param="wheels",
            )
        hashes.setdefault(name, []).append(_hash(file))
        unpacked += _unpacked(file)
    return lock_of(Pin(name, versions[name], tuple(sorted(found))) for name, found in hashes.items()), unpacked


def _named(file: Path) -> tuple[str, str]:
    """Source: the binary distribution format, "File name convention"."""
    parts = file.name.removesuffix(".whl").split("-")
    if len(parts) not in (5, 6):
        raise CallerError(f"{file.name} is not named as wheels are", hint="remove it, or give it its own name back")
    return normalized(parts[0]), parts[1].replace("_", "+")


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _unpacked(file: Path) -> int:
    try:
        with zipfile.ZipFile(file) as wheel:
            return sum(each.file_size for each in wheel.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise CallerError(f"{file.name} is damaged: {error}", hint="fetch it again", param="wheels") from error
