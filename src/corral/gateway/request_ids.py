"""Numbers for requests whose clients gave them none."""

from __future__ import annotations

import itertools
import os

_COUNT = itertools.count(int.from_bytes(os.urandom(8), "big"))


def new_request_id() -> bytes:
    """Different from all others; nothing secret."""
    # Consecutive numbers times an odd one: all different, and not mistaken for each other by people.
    return b"req_%016x" % (next(_COUNT) * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF)
