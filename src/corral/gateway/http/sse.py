"""Cutting a stream of server-sent events between events, never inside one. Pure.

Source: the event stream format of the HTML Living Standard, section 9.2: lines end in LF, CR LF or CR, and an empty
line ends an event.
"""

from __future__ import annotations

import re
from collections import deque

from corral.errors import EngineError

MAX_EVENT_BYTES = 16 << 20
TAIL_BYTES = 64 << 10

# A CR that an LF follows is half of one line end, so it must not count as a whole one.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\r|\n)")


class Splitter:
    """Takes bytes as they come and gives whole events back, in order and unchanged."""

    __slots__ = ("_edge", "_held", "_held_bytes", "_max_event", "_tail", "_tail_bytes", "_tail_max")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._max_event = max_event_bytes
        self._tail_max = tail_bytes
        self._held: list[bytes] = []  # the beginning of an event, in the pieces it came in
        self._held_bytes = 0
        self._edge = b""  # the last bytes held: a blank line may straddle two pieces
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, as one run of bytes; empty when it completes none.

        Raises EngineError when an event grows beyond the bound.
        """
        edge = self._edge
        window = edge + data if edge else data
        cut = _last_end(window) - len(edge)
        if cut <= 0:
            self._hold(data)
            return b""
        if self._held:
            self._held.append(data[:cut])
            whole = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._edge = b""
        else:
            whole = data if cut == len(data) else data[:cut]
        if cut < len(data):
            self._hold(data[cut:])
        self._keep(whole)
        return whole

    def rest(self) -> bytes:
        """What is held and is no whole event: the end of a stream that stopped without a blank line."""
        return b"".join(self._held)

    @property
    def holding(self) -> bool:
        """The beginning of an event is held."""
        return bool(self._held)

    @property
    def tail(self) -> bytes:
        """The last events given back, whole, as many as fit the bound."""
        return b"".join(self._tail)

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held.append(data)
        self._held_bytes += len(data)
        self._edge = data[-3:] if len(data) >= 3 else (self._edge + data)[-3:]
        if self._held_bytes > self._max_event:
            raise EngineError(
                f"the engine sent an event of more than {self._max_event} bytes",
                hint="no engine does that in good health: see its log",
            )

    def _keep(self, whole: bytes) -> None:
        if not self._tail_max:
            return
        if len(whole) > self._tail_max:
            # An empty first match is impossible, so what follows a blank line is the start of an event.
            found = _BLANK.search(whole, len(whole) - self._tail_max)
            whole = whole[found.end() :] if found is not None else b""
            self._tail.clear()
            self._tail_bytes = 0
        self._tail.append(whole)
        self._tail_bytes += len(whole)
        while self._tail_bytes > self._tail_max:
            self._tail_bytes -= len(self._tail.popleft())


def _last_end(window: bytes) -> int:
    """The index after the last blank line, or 0."""
    if b"\r" not in window:
        return window.rfind(b"\n\n") + 2 if b"\n\n" in window else 0
    end = 0
    for match in _BLANK.finditer(window):
        end = match.end()
    return end


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:
    """One event with `data`, which may have several lines."""
    lines = [f"id: {id}\n"] if id is not None else []
    if name is not None:
        lines.append(f"event: {name}\n")
    lines.extend(f"data: {line}\n" for line in re.split(r"\r\n|\n|\r", data))
    return ("".join(lines) + "\n").encode(errors="replace")


HEARTBEAT = b": still here\n\n"
"""A comment: it keeps proxies and clients from giving up, and readers skip it."""
