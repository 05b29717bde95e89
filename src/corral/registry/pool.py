"""Idle connections, kept for the next request to the same place."""

from __future__ import annotations

import threading

from corral import clock
from corral.registry.connection import Connection

MAX_IDLE_EACH = 8
MAX_IDLE_S = 30.0


class Pool:
    """Connections by key; the newest is taken first, and those idle for too long are closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[object, list[Connection]] = {}
        self._closed = False

    def take(self, key: object) -> Connection | None:
        """A connection that its peer has not closed as far as can be seen, or None."""
        while True:
            with self._lock:
                idle = self._idle.get(key)
                connection = idle.pop() if idle else None
            if connection is None:
                return None
            if clock.monotonic() - connection.idle_since < MAX_IDLE_S and not connection.stale:
                return connection
            connection.close()

    def put(self, key: object, connection: Connection) -> None:
        """Keeps `connection`, or closes it when it cannot be used again."""
        old: list[Connection] = []
        now = clock.monotonic()
        connection.idle_since = now
        with self._lock:
            if connection.reusable and not self._closed:
                self._idle.setdefault(key, []).append(connection)
            else:
                old.append(connection)
            for each, idle in list(self._idle.items()):
                while idle and (len(idle) > MAX_IDLE_EACH or now - idle[0].idle_since > MAX_IDLE_S):
                    old.append(idle.pop(0))
                if not idle:
                    del self._idle[each]
        for connection in old:
            connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            old = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in old:
            connection.close()
