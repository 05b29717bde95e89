"""Messages between two processes of one user, with an open socket each where one is wanted.

One message is a line of JSON. A socket travels with its message's first byte, so messages and sockets keep one order.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
Heard = Callable[[Message, "socket.socket | None"], None]

_READ_BYTES = 64 << 10
_MOST_SOCKETS = 64
"""That one read may bring: each message has one at most, and has forty bytes at least."""


class Inbox:
    """Puts together what comes in, in pieces."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._sockets: deque[socket.socket] = deque()

    def receive(self, way: socket.socket) -> list[tuple[Message, socket.socket | None]] | None:
        """The messages that one read completes; None at the end. Raises OSError, ValueError for what is no message."""
        data, descriptors, _, _ = socket.recv_fds(way, _READ_BYTES, _MOST_SOCKETS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            self._sockets.append(socket.socket(fileno=descriptor))
        if not data:
            return None
        self._text += data
        *lines, rest = self._text.split(b"\n")
        self._text = rest
        return [self._message(bytes(line)) for line in lines]

    def _message(self, line: bytes) -> tuple[Message, socket.socket | None]:
        message = json.loads(line)
        with_socket = message.pop("socket", False) and self._sockets
        return message, self._sockets.popleft() if with_socket else None

    def close(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets.clear()


class Way:
    """One end of a connection, on the event loop in which it is made; it owns `sock`.

    `ended` is called once, when the other end closes or breaks it.
    """

    def __init__(
        self, sock: socket.socket, heard: Heard, ended: Callable[[], None], inbox: Inbox | None = None
    ) -> None:
        sock.setblocking(False)
        self._sock, self._heard, self._on_end = sock, heard, ended
        self._inbox = Inbox() if inbox is None else inbox
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._closing = self.closed = False
        self._sent: asyncio.Future[None] | None = None
        self._loop.add_reader(sock.fileno(), self._readable)

    def say(self, message: Message, sock: socket.socket | None = None) -> None:
        """Sends as the other end takes it. `sock` is ours from now on, and closed here once it is sent."""
        if self.closed or self._closing:
            if sock is not None:
                sock.close()
            return
        line = json.dumps(message if sock is None else {**message, "socket": True}).encode() + b"\n"
        self._unsent.append((line, sock))
        if len(self._unsent) == 1:
            self._send()

    async def finish(self) -> None:
        """Closes once everything is sent."""
        self._closing = True
        if self._unsent and not self.closed:
            self._sent = self._loop.create_future()
            await self._sent
        self.close()

    def close(self) -> None:
        """Closes now. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._inbox.close()
        for _, sock in self._unsent:
            if sock is not None:
                sock.close()
        self._unsent.clear()
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def _send(self) -> None:
        while self._unsent:
            line, sock = self._unsent[0]
            try:
                if sock is not None:
                    sent = socket.send_fds(self._sock, [line], [sock.fileno()])
                    sock.close()
                else:
                    sent = self._sock.send(line)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._send)
                return
            except OSError:
                self._ended()
                return
            if sent < len(line):
                self._unsent[0] = (line[sent:], None)
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())
        if self._closing:
            self.close()

    def _readable(self) -> None:
        try:
            messages = self._inbox.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            messages = None
        if messages is None:
            self._ended()
            return
        for message, sock in messages:
            self._heard(message, sock)

    def _ended(self) -> None:
        if not self.closed:
            self.close()
            self._on_end()
