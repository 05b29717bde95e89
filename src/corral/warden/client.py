"""One connection: lines in, lines out, neither without bound."""

from __future__ import annotations

from .protocol import MAX_LINE_BYTES, MAX_OUTBOX_BYTES, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from typing import Any


class Client:
    """A non-blocking socket with its two buffers. `gone` once either side has ended it."""

    __slots__ = ("_inbox", "_outbox", "_skipping", "_socket", "daemon", "gone", "greeted", "leaving")

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._skipping = False
        self.greeted = False  # said hello: gets events
        self.daemon = False  # holds the leash
        self.leaving = False  # said bye: its going is no accident
        self.gone = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        return bool(self._outbox)

    def receive(self) -> Iterator[bytes | None]:
        """Reads once; yields each complete line, and None for one that was too long to take."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return
        self._inbox += data
        while (end := self._inbox.find(b"\n")) >= 0:
            line = bytes(self._inbox[:end])
            del self._inbox[: end + 1]
            if self._skipping or len(line) > MAX_LINE_BYTES:
                self._skipping = False
                yield None
            elif line.strip():
                yield line
        if len(self._inbox) > MAX_LINE_BYTES:
            self._skipping = True
        if self._skipping:
            self._inbox.clear()

    def send(self, message: dict[str, Any]) -> None:
        """Never blocks; a client that does not read is dropped when too much piled up."""
        if self.gone:
            return
        self._outbox += encode(message)
        self.flush()
        if len(self._outbox) > MAX_OUTBOX_BYTES:
            self.gone = True

    def flush(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._socket.send(memoryview(self._outbox)[: 1 << 16])]
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def close(self) -> None:
        self.gone = True
        self._socket.close()
