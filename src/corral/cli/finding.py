"""`Finding`: one line of the doctor's report."""

from __future__ import annotations

from typing import Literal

from corral.lazy_dataclass import dataclass

Level = Literal["ok", "warn", "missing", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and how it is. `missing` is something optional; only `error` keeps Corral from working."""

    area: str
    name: str
    level: Level
    text: str
    fix: str = ""  # the command that mends it, or the sentence where no command can


def install(*packages: str, brew: str | None = None) -> str:
    """The command that installs Debian's `packages`, in the words of this machine's package manager."""
    import shutil
    import sys

    names = " ".join(packages)
    if sys.platform == "darwin":
        return f"brew install {brew or names}"
    for program, words in (
        ("apt-get", "apt-get install"),
        ("dnf", "dnf install"),
        ("zypper", "zypper install"),
        ("pacman", "pacman -S"),
        ("apk", "apk add"),
    ):
        if shutil.which(program):
            return f"sudo {words} {names}"
    return f"install {names} with your system's package manager"
