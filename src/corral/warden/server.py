"""The warden's one loop: its socket, its clients, its signals, and when it ends."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time

from . import kernel
from .client import Client
from .engines import Engines
from .journal import note
from .records import Records
from .requests import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_CLIENTS = 64
"""Further connections are closed at once."""

GRACE_S = 10.0
"""From TERM to KILL when nobody said otherwise."""

AFTER_KILL_S = 2.0
"""How long the warden waits, when it ends, for what it has killed."""


class Server:
    """Single-threaded; nothing in it blocks. `run` returns when it is time to end."""

    def __init__(self, listener: socket.socket, records: Records, linger_s: float, idle_s: float) -> None:
        self.started_wall_s = time.time()
        self.quitting = False
        self._quit_by = 0.0
        self._listener, self._linger_s, self._idle_s = listener, linger_s, idle_s
        self._clients: list[Client] = []
        self._selector = selectors.DefaultSelector()
        self._alone_since = self._idle_since = time.monotonic()
        self.engines = Engines(records, self._tell, self._watch, self._unwatch)

    def run(self) -> None:
        kernel.adopt_orphans()
        self._catch_signals()
        self.engines.load()
        self._watch(self._listener.fileno(), self._accept)
        while not self._done(time.monotonic()):
            ready = self._selector.select(self._timeout(time.monotonic()))
            self._keep_time(time.monotonic())
            for key, _ in ready:
                key.data()
            self._sweep()
            self.engines.tick(time.monotonic())
        self.engines.nursery.close("the warden ends")

    def quit(self, grace_s: float, why: str) -> None:
        """Stops all engines and then ends; called again, it may only hasten that."""
        note(f"ending: {why}")
        by = time.monotonic() + grace_s + AFTER_KILL_S
        self._quit_by = min(self._quit_by, by) if self.quitting else by
        self.quitting = True
        for engine in self.engines.living:
            self.engines.stop(engine.unit, grace_s)

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def _tell(self, event: dict[str, Any]) -> None:
        for client in self._clients:
            if client.greeted:
                client.send(event)

    def _catch_signals(self) -> None:
        self._wakeup, into = socket.socketpair()
        self._wakeup.setblocking(False)
        into.setblocking(False)
        self._wakeup_writer = into
        signal.set_wakeup_fd(into.fileno(), warn_on_full_buffer=False)
        for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda number, frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that started the daemon may go
        self._watch(self._wakeup.fileno(), self._signalled)

    def _signalled(self) -> None:
        try:
            came = set(self._wakeup.recv(4096))
        except BlockingIOError:
            return
        self.engines.reap()
        if came & {signal.SIGTERM, signal.SIGINT}:
            self.quit(0.0 if self.quitting else GRACE_S, "told to by a signal")

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it left again, or there are no descriptors left: the next one may succeed
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        client = Client(connection)
        self._clients.append(client)
        self._watch(client.fileno(), lambda: self._serve(client))

    def _serve(self, client: Client) -> None:
        if client.gone:
            return
        client.flush()
        for line in client.receive():
            answer(self, client, line)

    def _sweep(self) -> None:
        """Lets go of clients that are gone, and asks to be woken for those with something left to send."""
        for client in [client for client in self._clients if client.gone]:
            self._clients.remove(client)
            self._selector.unregister(client)
            client.close()
            if client.daemon and not client.leaving and not self._led:
                self._end_leashed()
        for client in self._clients:
            key = self._selector.get_key(client)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_to_write else 0)
            if key.events != events:
                self._selector.modify(client, events, key.data)

    def _end_leashed(self) -> None:
        for engine in self.engines.living:
            if engine.leash == "die-with-daemon":
                note(f"the daemon is gone, stopping {engine.unit}")
                self.engines.stop(engine.unit, GRACE_S)

    def _keep_time(self, now: float) -> None:
        """Notes until when somebody was here, before what just happened changes that."""
        if self._led:
            self._alone_since = now
        if self._clients or self.engines.living:
            self._idle_since = now

    @property
    def _led(self) -> bool:
        return any(client.daemon for client in self._clients)

    def _done(self, now: float) -> bool:
        living = self.engines.living
        if not self.quitting and living and not self._led and now >= self._alone_since + self._linger_s:
            self.quit(GRACE_S, f"no daemon came back within {self._linger_s:.0f} s")
        if self.quitting:
            return not living or now >= self._quit_by
        return not living and not self._clients and now >= self._idle_since + self._idle_s

    def _timeout(self, now: float) -> float:
        """Seconds until something is due; a minute at most, so that a clock that jumped does no harm."""
        due, living = [now + 60.0], self.engines.living
        if self.quitting:
            due.append(self._quit_by)
        elif living and not self._led:
            due.append(self._alone_since + self._linger_s)
        elif not living and not self._clients:
            due.append(self._idle_since + self._idle_s)
        engines_due = self.engines.next_due(now)
        return max(0.0, min(due) - now if engines_due is None else min(min(due) - now, engines_due))


def listen(path: str) -> socket.socket:
    """A listening unix socket at `path`, for this user only; one that a dead warden left is replaced.

    Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(16)
    listener.setblocking(False)
    return listener
