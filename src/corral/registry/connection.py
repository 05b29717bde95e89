"""One HTTP/1.1 connection: a socket, the bytes already read from it, and one exchange at a time.

Not `http.client`: there a body's bytes pass through a buffered reader, a head may have megabytes, and a server that
sends it one byte a time is waited for without an end.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import BinaryIO

import httptools

from corral import clock
from corral.errors import Unavailable

MAX_HEAD_BYTES = 64 << 10
MAX_INTERIM_ANSWERS = 16
_RECEIVE_BYTES = 64 << 10
_SEND_BYTES = 1 << 20
_BODILESS = (204, 304)
_IDLE_FEEDS = 256


class Headers:
    """An answer's headers; names are lower case."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, name: str, default: str = "") -> str:
        """The first value."""
        return next((value for key, value in self.pairs if key == name), default)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.pairs)


class Connection:
    """A connected socket. Used by one thread at a time, but for `abort`.

    Every method raises Unavailable when the peer breaks off, stalls or speaks no HTTP; then the connection is spent.
    """

    def __init__(self, sock: socket.socket, who: str, stall_s: float) -> None:
        self.sock = sock
        self.who = who
        self.used = 0  # exchanges begun
        self.idle_since = 0.0
        self.head: Headers = Headers([])
        self.status = 0
        self.answered = False  # something of the present answer has arrived
        self._stall_s = stall_s
        self._early = b""  # read with the head
        self._left: int | None = 0  # bytes of the body to come; None: unknown
        self._chunks: _Parser | None = None
        self._keep = True
        sock.settimeout(stall_s)

    # Sending.

    def send(self, head: bytes, body: bytes | None = None) -> None:
        """Sends a request's head, and a small body with it."""
        self.used += 1
        self.answered = False
        self._send(head + body if body else head)

    def send_file(self, file: BinaryIO, length: int, sent: Callable[[int], None] | None) -> bool:
        """Sends the next `length` bytes of `file`; `sent` is told each piece's size.

        False when the server answered before it had all of it: then nothing more is sent, and the connection is not
        used again. Raises ValueError when the file is shorter.
        """
        plain = type(self.sock) is socket.socket
        buffer = memoryview(bytearray(min(_SEND_BYTES, max(1, length))))
        left = length
        while left:
            if plain and _readable(self.sock):
                self._keep = False
                return False
            count = file.readinto(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]
            if not count:
                raise ValueError("the file is shorter than was said")
            try:
                self.sock.sendall(buffer[:count])
            except (BrokenPipeError, ConnectionResetError):
                self._keep = False  # it may have said why
                return False
            except OSError as error:
                raise self._broken(error, "while it was sent to") from error
            left -= count
            if sent is not None:
                sent(count)
        return True

    def _send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise self._broken(error, "while it was sent to") from error

    # Receiving.

    def read_head(self, method: str, answer_s: float) -> None:
        """Reads the answer's status and headers; its first byte may take `answer_s`."""
        for _ in range(MAX_INTERIM_ANSWERS):
            raw = self._read_raw_head(answer_s)
            parser = _Parser()
            try:
                parser.feed(raw)
            except httptools.HttpParserError as error:
                raise self._unclear(str(error)) from error
            self.status = parser.status
            if self.status >= 200:
                self.head = Headers(parser.headers)
                self._set_framing(method, parser)
                return
        raise self._unclear("it answers with nothing but interim statuses")

    def readinto(self, view: memoryview) -> int:
        """Fills some of `view` with the body's next bytes; 0 at its end."""
        if self._chunks is not None:
            return self._read_chunks(self._chunks, view)
        if self._left == 0 or not view:
            return 0
        if self._left is not None:
            view = view[: self._left]
        if self._early:
            count = min(len(view), len(self._early))
            view[:count] = self._early[:count]
            self._early = self._early[count:]
        else:
            count = self._receive(view)
        if self._left is None:
            if not count:
                self._left = 0
            return count
        if not count:
            raise Unavailable(
                f"{self.who} broke off with {self._left} bytes to come",
                hint="try again; what is here already is not fetched again",
                reason="truncated",
            )
        self._left -= count
        return count

    @property
    def finished(self) -> bool:
        """Whether the body has been read to its end."""
        return self._chunks.done if self._chunks is not None else self._left == 0

    @property
    def reusable(self) -> bool:
        return self._keep and self.finished and not self._early

    @property
    def surplus(self) -> bool:
        """Whether bytes have come that belong to no answer so far."""
        return self.finished and bool(self._early)

    @property
    def stale(self) -> bool:
        """Whether an idle connection has been closed by its peer, or has bytes nobody asked for."""
        return _readable(self.sock)

    def abort(self) -> None:
        """Ends it from another thread: whoever reads gets Unavailable and must close it."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not TLS's own, which a reading thread would trip over
        except OSError:
            return

    def close(self) -> None:
        self._keep = False
        self.sock.close()

    def _set_framing(self, method: str, parser: _Parser) -> None:
        self._chunks = None
        self._keep = self._keep and parser.keep_alive
        encodings = ",".join(self.head.get_all("transfer-encoding")).lower()
        lengths = set(self.head.get_all("content-length"))
        if method == "HEAD" or self.status in _BODILESS:
            self._left = 0
        elif encodings:
            if encodings.strip() != "chunked":
                raise self._unclear(f"it sends the transfer encoding {encodings[:40]!r}")
            self._chunks = parser
        elif lengths:
            text = lengths.pop()
            if lengths or not text.isdigit() or len(text) > 18:
                raise self._unclear("its Content-Length is no number")
            self._left = int(text)
        else:
            self._left, self._keep = None, False

    def _read_raw_head(self, answer_s: float) -> bytes:
        data = bytearray(self._early)
        self._early = b""
        deadline = clock.monotonic() + answer_s
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise self._unclear(f"its headers have more than {MAX_HEAD_BYTES} bytes")
            try:
                self.sock.settimeout(max(0.001, deadline - clock.monotonic()))
                piece = self.sock.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise self._broken(error, "before its answer came from") from error
            if not piece:
                raise Unavailable(
                    f"{self.who} closed the connection without an answer", hint="try again", reason="closed"
                )
            if not self.answered:
                self.answered = True
                deadline = clock.monotonic() + self._stall_s
            data += piece
        self.sock.settimeout(self._stall_s)
        if end > MAX_HEAD_BYTES:
            raise self._unclear(f"its headers have more than {MAX_HEAD_BYTES} bytes")
        self._early = bytes(data[end + 4 :])
        return bytes(data[: end + 4])

    def _read_chunks(self, parser: _Parser, view: memoryview) -> int:
        for _ in range(_IDLE_FEEDS):
            if parser.done or not view:
                return 0
            if self._early:
                data = self._early[: len(view)]
                self._early = self._early[len(data) :]
            else:
                count = self._receive(view)
                if not count:
                    raise Unavailable(f"{self.who} broke off", hint="try again", reason="truncated")
                data = bytes(view[:count])
            try:
                parser.feed(data)
            except httptools.HttpParserError as error:
                if not parser.done:
                    raise self._unclear(str(error)) from error
                self._keep = False
            at = 0
            for part in parser.take():
                view[at : at + len(part)] = part
                at += len(part)
            if at:
                return at
        raise self._unclear("its chunks have no content")

    def _receive(self, view: memoryview) -> int:
        try:
            return self.sock.recv_into(view)
        except OSError as error:
            raise self._broken(error, "while it was read from") from error

    def _broken(self, error: OSError, when: str) -> Unavailable:
        if isinstance(error, TimeoutError):
            return Unavailable(
                f"{self.who} sent nothing for {self._stall_s:.0f} s",
                hint="the network or the server stalls",
                reason="stall",
            )
        return Unavailable(
            f"the connection broke {when} {self.who}: {error.strerror or error}", hint="try again", reason="broken"
        )

    def _unclear(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self.who} does not speak HTTP as it should: {why}", hint="is it a registry?", reason="protocol"
        )


class _Parser:
    """One answer through httptools: its head and, when it comes in chunks, its body."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.done = False
        self._parts: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises httptools.HttpParserError."""
        self._parser.feed_data(data)

    def take(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        return parts

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def keep_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    # httptools calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_body(self, data: bytes) -> None:
        if not self.done:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        self.done = True


def _readable(sock: socket.socket) -> bool:
    poller = select.poll()  # select() knows no descriptors above 1023
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))
