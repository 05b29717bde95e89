"""Writing a first models.yaml for the user."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from corral.config.atomic import replace_file
from corral.config.paths import Paths
from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """What `init` did."""

    file: Path
    backup: Path | None  # what the file held before


def example_text() -> str:
    """The shipped example: two large models, one at a time."""
    return _shipped("example.yaml")


def starter_text() -> str:
    """The shipped first configuration: the demo model, and how to add one's own."""
    return _shipped("starter.yaml")


def init(paths: Paths, *, example: bool = False, force: bool = False) -> Written:
    """Writes the user's models.yaml, readable by this user only; with `force`, over one that is there, which is kept
    beside it.

    Raises ConfigError when there is one already, or when it cannot be written.
    """
    file = paths.user_config
    backup = None
    if file.is_symlink() or file.exists():
        if not force:
            raise ConfigError(f"{file} is there already", hint="edit it, or replace it with --force")
        backup = file.with_name(f"{file.name}.bak")
        try:
            before = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else None
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}", hint="check its owner and mode") from error
        if before is None:
            backup = None
        else:
            replace_file(backup, before)
    replace_file(file, example_text() if example else starter_text())
    return Written(file, backup)


def _shipped(name: str) -> str:
    return (files("corral.config") / name).read_text(encoding="utf-8")
