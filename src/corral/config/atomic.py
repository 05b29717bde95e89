"""Replacing a small file as a whole: readers see the old text or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from corral.errors import ConfigError


def replace_file(file: Path, text: str, mode: int = 0o600) -> None:
    """Writes `text` to `file`, its directory made if need be, and on disk when this returns.

    Raises ConfigError when the place cannot be written to.
    """
    temporary: Path | None = None
    try:
        # A symbolic link stays one: what it points to is replaced.
        file = file.resolve()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            opened.write(text)
            opened.flush()
            os.fchmod(opened.fileno(), mode)
            os.fsync(opened.fileno())
        temporary.replace(file)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write {file}: {error.strerror}", hint="check the directory's owner, mode and free space"
        ) from error
