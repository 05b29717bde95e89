"""`Link`: a connection to an engine, and `Pool`: those that wait for the next request.

The socket is used directly: a transport of the event loop would cost as much again as the connection itself. What is
kept is kept shortly, because each connection holds a thread of llama.cpp's, and because it closes them after 5 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Protocol

from corral import clock
from corral.engines.plan import Endpoint
from corral.gateway.http.outbox import Outbox

IDLE_S = 2.0
MAX_IDLE = 64
"""Kept connections to one engine."""
MAX_CLOSERS = 64

_READ_BYTES = 64 << 10
_COPIED_BYTES = 16 << 10


class Receiver(Protocol):
    """Who gets what an engine says."""

    def received(self, data: bytes) -> None: ...

    def lost(self, *, broken: bool) -> None:
        """The connection has ended; `broken`: not as it should."""
        ...


class Link:
    """A connected socket. Everything runs in the event loop in which it was made."""

    __slots__ = (
        "_fd",
        "_listening",
        "_loop",
        "_recv",
        "_sock",
        "_unsent",
        "_waits",
        "closed",
        "idle_since",
        "receiver",
    )

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._recv = sock.recv
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._listening = False
        self._unsent: memoryview | None = None
        self._waits: tuple[bytes, bytes] | None = None  # what goes out with the outbox
        self.receiver: Receiver | None = None  # nobody: whatever comes closes the connection
        self.closed = False
        self.idle_since = 0.0

    def post(self, head: bytes, body: bytes, outbox: Outbox) -> None:
        """As `send`, with all else that goes out in this turn."""
        self._waits = head, body
        outbox.add(self)

    def let_out(self) -> None:
        if (waits := self._waits) is not None:
            self._waits = None
            self.send(*waits)

    def send(self, head: bytes, body: bytes) -> None:
        """Sends as much as the connection takes now, and the rest as it goes. A large body is not copied.

        An engine that is gone is not told here: what it answered before it went, or that it went, is found by reading.
        """
        if len(body) <= _COPIED_BYTES:
            head, body = head + body, b""
        try:
            sent = self._sock.sendmsg((head, body)) if body else self._sock.send(head)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return
        if sent < len(head) + len(body):
            # A part of the head is left over only when it is huge, or the engine reads nothing.
            whole = head + body if sent < len(head) else body
            self._unsent = memoryview(whole)[sent - (len(head) + len(body) - len(whole)) :]
            self._loop.add_writer(self._fd, self._send_on)

    @property
    def sending(self) -> bool:
        return self._unsent is not None

    def listen(self) -> None:
        if not self._listening and not self.closed:
            self._listening = True
            self._loop.add_reader(self._fd, self._readable)

    def pause(self) -> None:
        """Stops reading, so that the engine has to wait."""
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if not self.closed:
            self.pause()
            self._mute()
            self.closed = True
            self.receiver = self._waits = None
            self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._ended(broken=True)
            return
        if data and (receiver := self.receiver) is not None:
            receiver.received(data)
        else:
            self._ended(broken=bool(data))

    def _ended(self, *, broken: bool) -> None:
        receiver = self.receiver
        self.close()
        if receiver is not None:
            receiver.lost(broken=broken)

    def _send_on(self) -> None:
        assert self._unsent is not None
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._mute()
            return
        if not self._unsent:
            self._mute()

    def _mute(self) -> None:
        if self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self._fd)


class _Idle:
    """Listens to a connection that had a stream."""

    __slots__ = ("_kept", "_link", "_pool")

    def __init__(self, pool: Pool, kept: _Kept, link: Link) -> None:
        self._pool, self._kept, self._link = pool, kept, link

    def received(self, data: bytes) -> None:
        """Nobody asked: the next request would take it for its answer."""
        self._link.close()

    def lost(self, *, broken: bool) -> None:
        self._pool.distrust(self._kept)


class _Kept:
    """The connections to one engine that wait."""

    __slots__ = ("key", "links")

    def __init__(self, key: str) -> None:
        self.key = key
        self.links: list[Link] = []


class Pool:
    """Links without a request, by engine, the one used last first."""

    def __init__(self) -> None:
        self._idle: dict[str, _Kept] = {}
        self._closers: dict[str, None] = {}  # engines that close connections after streams
        self._last: tuple[Endpoint | None, _Kept] = (None, _Kept(""))  # the endpoint looked for last, and what it has
        self._timer: asyncio.TimerHandle | None = None

    def take(self, endpoint: Endpoint) -> Link | None:
        """A link that was open when it was last heard of; the engine may close it at any time."""
        last = self._last
        links = (last[1] if last[0] is endpoint else self._of(endpoint)).links
        while links:
            link = links.pop()
            if not link.closed:
                return link
        return None

    def give(self, endpoint: Endpoint, link: Link, now: float | None = None) -> None:
        """Keeps `link` for a while. It is ours from now on."""
        last = self._last
        links = (last[1] if last[0] is endpoint else self._of(endpoint)).links
        link.receiver = None
        if link.closed or len(links) >= MAX_IDLE:
            link.close()
            return
        link.listen()  # to hear of its end
        link.idle_since = now or clock.monotonic()
        links.append(link)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_S / 2, self._look)

    def give_streamed(self, endpoint: Endpoint, link: Link) -> None:
        """As `give`, after a stream. An engine that closes such a connection although it said it would keep it is not
        believed a second time: a fresh one is made ready instead, as long as none is."""
        kept = self._of(endpoint)
        if kept.key in self._closers:
            link.close()
            self.make_ready(endpoint)
            return
        self.give(endpoint, link)
        if not link.closed:
            link.receiver = _Idle(self, kept, link)

    def make_ready(self, endpoint: Endpoint) -> None:
        """Opens a connection for the next request, unless one waits for it already."""
        if any(not link.closed for link in self._of(endpoint).links):
            return
        if (link := connect_now(endpoint)) is not None:
            self.give(endpoint, link)

    def distrust(self, kept: _Kept) -> None:
        self._closers[kept.key] = None
        if len(self._closers) > MAX_CLOSERS:
            del self._closers[next(iter(self._closers))]

    def close(self) -> None:
        """Closes what is idle; what is in use may still be given back, and is kept as before."""
        for kept in self._idle.values():
            for link in kept.links:
                link.close()
            kept.links.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _of(self, endpoint: Endpoint) -> _Kept:
        """What is kept for `endpoint`. Requests of one lease, which are most in a row, all have the same object."""
        last = self._last
        if last[0] is endpoint:
            return last[1]
        key = _key(endpoint)
        if (kept := self._idle.get(key)) is None:
            kept = self._idle[key] = _Kept(key)
        self._last = endpoint, kept
        return kept

    def _look(self) -> None:
        self._timer = None
        oldest = clock.monotonic() - IDLE_S
        some = False
        for key, kept in list(self._idle.items()):
            for link in kept.links:
                if link.idle_since < oldest:
                    link.close()
            kept.links[:] = [link for link in kept.links if not link.closed]
            some = some or bool(kept.links)
            if not kept.links and kept is not self._last[1]:
                del self._idle[key]
        if some:
            self._timer = asyncio.get_running_loop().call_later(IDLE_S / 2, self._look)


def _key(endpoint: Endpoint) -> str:
    # A path remembers its text, and makes its hash anew.
    return str(endpoint.socket) if endpoint.socket is not None else f"{endpoint.host}:{endpoint.port}"


def connect_now(endpoint: Endpoint) -> Link | None:
    """A connection that is there at once, as one over a unix socket is while its engine accepts; None else."""
    if endpoint.socket is None:
        return None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:  # no descriptor is left: whoever can wait for one will say so
        return None
    try:
        sock.setblocking(False)
        sock.connect(str(endpoint.socket))
    except OSError:
        sock.close()
        return None
    return Link(sock)


async def connect(endpoint: Endpoint, connect_s: float) -> Link:
    """Raises TimeoutError, OSError."""
    sock = await (_unix(str(endpoint.socket), connect_s) if endpoint.socket is not None else _tcp(endpoint, connect_s))
    return Link(sock)


async def _tcp(endpoint: Endpoint, connect_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(connect_s):
            await asyncio.get_running_loop().sock_connect(sock, (endpoint.host, endpoint.port))
        return sock
    except BaseException:
        sock.close()
        raise


async def _unix(path: str, connect_s: float) -> socket.socket:
    """Such a connect ends at once, one way or the other."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError as exc:
            # llama.cpp listens with a backlog of five: in a burst, the rest has to knock again.
            if exc.errno != errno.EAGAIN:
                raise
            await _knock(sock, path, clock.monotonic() + connect_s)
        return sock
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise


async def _knock(sock: socket.socket, path: str, deadline: float) -> None:
    pause_s = 0.0005
    while True:
        if clock.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)
        try:
            sock.connect(path)
            return
        except OSError as exc:
            if exc.errno != errno.EAGAIN:
                raise
