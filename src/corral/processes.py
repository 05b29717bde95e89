"""Processes that are not ours, by their ids."""

from __future__ import annotations

import os


def alive(pid: int) -> bool:
    """Whether there is such a process, whoever's it is; one that has ended and was not waited for counts."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
