"""The files of a model as they were at one moment, to see whether somebody has changed them since."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corral.config.settings import ModelSettings
from corral.models.formats.shards import all_shards

Identity = tuple[tuple[int, int, int, int] | None, ...]


def identity(model: ModelSettings) -> Identity:
    """Which files these are, how long, and when written; None for each that is not there. Blocks for a moment.

    Of a model of the store there is nothing to see: what has a digest does not change. Nor of another's server.
    """
    if model.ref is not None or model.endpoint is not None:
        return ()
    named = [Path(arg) for arg in model.args if arg.startswith("/")]  # adapters, projectors, draft models
    return tuple(_one(path) for path in (*all_shards(model.source), *named))


def short(name: str) -> str:
    """A file name for `name`'s sockets: readable, without separators, and short enough for a socket's path."""
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:16]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _one(path: Path) -> tuple[int, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns
