"""A little of the disk kept back, so that a model can be removed when nothing else can be written any more."""

from __future__ import annotations

import contextlib
import os
import secrets

from corral.store.layout import Layout

LEAST_BYTES = 1 << 20


def keep(layout: Layout) -> None:
    """Makes the reserve, large enough for a new index, where it is missing or too small and there is room."""
    file = layout.private / "reserve"
    with contextlib.suppress(OSError):
        size = max(LEAST_BYTES, 2 * layout.index.stat().st_size)
        if file.exists() and file.stat().st_size >= size:
            return
        scratch = file.with_name(f"reserve.{secrets.token_hex(4)}")
        try:
            with scratch.open("xb") as made:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(made.fileno(), 0, size)
                else:
                    made.write(bytes(size))
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)


def spend(layout: Layout) -> bool:
    """Gives the reserve to whoever needs it now; whether there was one."""
    try:
        (layout.private / "reserve").unlink()
    except OSError:
        return False
    return True
