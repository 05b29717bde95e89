"""Which working directories may configure Corral: the list, and what makes a directory unfit for it.

A models.yaml names programs to run, so one that merely lies in the current directory is used only after its owner
said so. Standard library only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from corral.config.atomic import replace_file
from corral.config.paths import Paths
from corral.errors import ConfigError


def trusted_directories(paths: Paths) -> list[Path]:
    """The directories on the list, in the order they were added.

    Raises ConfigError when the list cannot be read, or when somebody else could have written it.
    """
    file = paths.trust_file
    try:
        if (fault := _fault(file)) is not None:
            raise ConfigError(f"{file} {fault}", hint=f"look through it, then: chown $USER {file}; chmod 600 {file}")
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="remove it and trust again") from error
    return [Path(line) for line in lines if line.startswith("/")]


def is_trusted(paths: Paths, directory: Path) -> bool:
    """Whether `directory` is on the list and still fit for it. Raises ConfigError as `trusted_directories` does."""
    try:
        real = directory.resolve()
        return real in trusted_directories(paths) and _fault(real) is None
    except FileNotFoundError:
        return False


def file_fault(file: Path) -> str | None:
    """Why `file` of a trusted directory must not be used, as the rest of a sentence; None when it may be."""
    try:
        return _fault(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def trust(paths: Paths, directory: Path) -> bool:
    """Puts `directory` on the list; False when it was there already.

    Raises ConfigError when it is no directory of this user, or when everybody may write to it.
    """
    real = directory.resolve()
    hint = "trust is for a directory that only you can change"
    try:
        if not real.is_dir():
            raise ConfigError(f"{real} is not a directory", hint="name the directory that holds the models.yaml")
        if (fault := _fault(real)) is not None:
            raise ConfigError(f"{real} {fault}", hint=hint)
    except OSError as error:
        raise ConfigError(f"{real} cannot be looked at: {error.strerror}", hint=hint) from error
    if any(char in str(real) for char in "\r\n") or not str(real).isprintable():
        raise ConfigError("the directory's name has characters that the list cannot hold", hint="rename it")
    known = trusted_directories(paths)
    if real in known:
        return False
    _write(paths, [*known, real])
    return True


def distrust(paths: Paths, directory: Path) -> bool:
    """Takes `directory` off the list; False when it was not there. Raises ConfigError when that cannot be written."""
    known = trusted_directories(paths)
    gone = {directory.absolute(), directory.resolve()}
    left = [each for each in known if each not in gone]
    if len(left) == len(known):
        return False
    _write(paths, left)
    return True


def _write(paths: Paths, directories: list[Path]) -> None:
    replace_file(paths.trust_file, "".join(f"{each}\n" for each in directories))


def _fault(path: Path) -> str | None:
    # Of the path and of what it links to: whoever can change either can change what is run.
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0):
        return f"belongs to user {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & stat.S_IWOTH:
        return "may be changed by every user of this machine"
    return None
