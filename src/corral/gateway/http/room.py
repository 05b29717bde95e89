"""How many connections there is room for: each may need a second descriptor, to its engine."""

from __future__ import annotations

import contextlib

MOST = 8192
_OURS = 256
"""Descriptors for everything else: logs, the store, the warden, engines that are being looked at."""
_WANTED = 2 * MOST + _OURS


def most_connections() -> int:
    """Raises this process's bound on open files as far as it may, and says how many clients' connections that lets
    one listener have."""
    try:
        import resource
    except ImportError:
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _WANTED:
        wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(16, min(MOST, (soft - _OURS) // 2))
