"""`Listeners`: every address Corral answers on, opened, changed and closed together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from corral import clock
from corral.access.tls import Served
from corral.config.settings import Listen, Settings
from corral.errors import CorralError, Stopping
from corral.gateway.app import App, MakeApp
from corral.gateway.connection import Connection
from corral.gateway.connections import LIMITS, Connections, Heir, Limits
from corral.gateway.http.sockets import BACKLOG, bound

_NONE: Mapping[str, list[socket.socket]] = MappingProxyType({})
_HANDSHAKE_S = 10.0
_LAST_WORDS_S = 1.0
"""How long an interrupted answer may take to say so."""


class Listener:
    """One address, its app, and its connections."""

    def __init__(self, where: Listen, app: App, limits: Limits) -> None:
        self.where = where
        self.app = app
        app.become(where)
        self.served: Served | None = None
        self._connections = Connections(app, limits)
        self._servers: list[asyncio.Server] = []
        self._inode: int | None = None
        self.addresses: list[Listen] = []  # as bound: with real ports

    async def open(self, given: Sequence[socket.socket] = ()) -> None:
        """Opens the address, or goes on with the sockets of an earlier server. Raises PortInUse, ConfigError."""
        loop, tls = asyncio.get_running_loop(), self.where.tls
        if tls is not None and (self.served is None or self.served.tls != tls):
            self.served = await asyncio.to_thread(Served, tls)
        elif tls is None:
            self.served = None
        sockets = list(given) or await asyncio.to_thread(bound, self.where)
        more: dict[str, Any] = {}
        if self.served is not None:
            more = {"ssl": self.served.context, "ssl_handshake_timeout": _HANDSHAKE_S}
        try:
            for sock in sockets:
                serve = loop.create_server if sock.family != socket.AF_UNIX else loop.create_unix_server
                self._servers.append(await serve(self._connection, sock=sock, backlog=BACKLOG, **more))
                self.addresses.append(self._address(sock))
        except BaseException:
            self.stop_accepting()
            for sock in sockets:
                sock.close()
            raise

    async def become(self, where: Listen, served: Served | None) -> None:
        """Goes on as `where`, which is the same address with something else said about it; `served` is its certificate.
        Connections that are open stay as they are."""
        anew = where.tls != self.where.tls
        self.where = where
        self.app.become(where)
        if anew:
            self.served = served
            await self.open(self.lend())

    def _connection(self) -> Connection:
        if self.served is not None:
            self.served.refresh()
        return Connection(self._connections)

    async def take(self, sock: socket.socket, early: bytes) -> None:
        """Goes on with a connection of an earlier server."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: Connection(self._connections, early), sock)
        except OSError:
            sock.close()  # its client is gone

    def lend(self) -> list[socket.socket]:
        """Takes no new connection, and gives the sockets, on which they gather until somebody opens them again."""
        sockets = [socket.socket(fileno=os.dup(each.fileno())) for server in self._servers for each in server.sockets]
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.addresses.clear()
        return sockets

    def pass_on(self, heir: Heir | None) -> None:
        """Has every connection passed on, now or after the answer that is being given; None ends that."""
        self._connections.heir = heir
        for connection in self._connections:
            connection.pass_on()

    @property
    def is_half_way(self) -> bool:
        """A request has begun to come and is not there yet."""
        return any(connection.is_half_way for connection in self._connections)

    def forget_path(self) -> None:
        """The socket's file belongs to another server."""
        self._inode = None

    def _address(self, sock: socket.socket) -> Listen:
        if self.where.path is not None:
            self._inode = self.where.path.stat().st_ino
            return self.where
        return replace(self.where, host=sock.getsockname()[0], port=sock.getsockname()[1])

    def stop_accepting(self) -> None:
        """New connections are refused; idle ones are closed, busy ones after their answer."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        path = self.where.path
        if path is not None and self._inode is not None:
            # Only our own: another server may have taken the place.
            with contextlib.suppress(OSError):
                if path.stat().st_ino == self._inode:
                    os.unlink(path)  # noqa: PTH108 - one form of the call that cannot follow a link
            self._inode = None
        for connection in self._connections:
            connection.shutdown()

    async def drain(self, deadline: float, error: CorralError) -> None:
        """Lets running answers end until `deadline`, then ends them with `error`, then breaks what is left."""
        await self._ended(deadline, lambda: self.app.active)
        for exchange in list(self.app.active):
            exchange.interrupt(error)
        await self._ended(clock.monotonic() + _LAST_WORDS_S, lambda: self.app.active)
        for exchange in list(self.app.active):
            exchange.abort()
        await self._ended(clock.monotonic() + _LAST_WORDS_S, lambda: self.app.active)
        for connection in self._connections:
            connection.shutdown()
        self.app.rest()

    async def _ended(self, deadline: float, which: Callable[[], Iterable[object]]) -> None:
        while which():
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            ends = [exchange.ending() for exchange in self.app.active]
            await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def end_endless(self, error: CorralError) -> None:
        """Followers of logs and events would never end by themselves."""
        for exchange in list(self.app.active):
            if exchange.endless:
                exchange.interrupt(error)


class Listeners:
    """All listeners of one Corral. Everything runs in the event loop that opened them."""

    def __init__(self, app: MakeApp, limits: Limits = LIMITS) -> None:
        self._app = app
        self._limits = limits
        self._open: dict[Listen, Listener] = {}
        self._draining: dict[asyncio.Task[None], Listener] = {}
        self._given: dict[str, list[socket.socket]] = {}
        self._control: Listen | None = None

    async def open(
        self, settings: Settings, control_socket: Path | None = None, given: Mapping[str, list[socket.socket]] = _NONE
    ) -> None:
        """Opens every address of `settings`, its models' own ports, and the control socket: all, or none.

        `given` are listening sockets of an earlier server, by address; those of no use are closed. Raises PortInUse,
        ConfigError.
        """
        self._control = Listen(path=control_socket) if control_socket is not None else None
        self._given = dict(given)
        try:
            await self.update(settings)
        finally:
            for sockets in self._given.values():
                for each in sockets:
                    each.close()
            self._given.clear()

    async def update(self, settings: Settings) -> None:
        """Makes the open addresses those of `settings`. When one cannot be opened, nothing changes.

        Answers that run on an address that goes are let end. Raises PortInUse, ConfigError.
        """
        wanted = _wanted(settings, self._control)
        fresh: dict[Listen, Listener] = {}
        served: dict[Listen, Served] = {}
        try:
            for where in wanted:
                if where in self._open and where.tls is not None and where.tls != self._open[where].where.tls:
                    served[where] = await asyncio.to_thread(Served, where.tls)
            for where, default in wanted.items():
                if where not in self._open:
                    fresh[where] = Listener(where, self._app(default, where.path is not None, where), self._limits)
                    await fresh[where].open(self._given.pop(str(where), ()))
        except BaseException:
            for listener in fresh.values():
                listener.stop_accepting()
            raise
        self._open.update(fresh)
        for where in [where for where in self._open if where not in wanted]:
            deadline = clock.monotonic() + settings.timeouts.drain_s
            self._retire(self._open.pop(where), deadline, Stopping(f"{where} is no longer served", hint="ask GET /"))
        for where, default in wanted.items():
            self._open[where].app.listener_default = default
            await self._open[where].become(where, served.get(where))

    def _retire(self, listener: Listener, deadline: float, error: CorralError) -> None:
        listener.stop_accepting()
        listener.end_endless(error)
        task = asyncio.create_task(listener.drain(deadline, error), name=f"drain {listener.where}")
        self._draining[task] = listener
        task.add_done_callback(self._draining.pop)

    @property
    def addresses(self) -> list[Listen]:
        """What is listened on, with real ports; the control socket is not among them."""
        return [address for where, each in self._open.items() if where != self._control for address in each.addresses]

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return sum(len(listener.app.active) for listener in self._open.values())

    # Handing over.

    def lend(self) -> dict[str, list[socket.socket]]:
        """Takes no new connection, and gives the listening sockets, by address."""
        return {str(where): listener.lend() for where, listener in self._open.items()}

    async def resume(self, lent: Mapping[str, list[socket.socket]]) -> None:
        """Takes connections again, on what was lent."""
        for where, listener in self._open.items():
            listener.pass_on(None)
            await listener.open(lent[str(where)])

    def pass_on(self, heir: Callable[[str, socket.socket, bytes], None]) -> None:
        """Has every connection passed on as soon as it waits for a request, with the address that it came to."""
        for where, listener in self._open.items():
            listener.pass_on(partial(heir, str(where)))

    async def take(self, where: str, sock: socket.socket, early: bytes) -> None:
        """Goes on with a connection of an earlier server."""
        for each, listener in self._open.items():
            if str(each) == where:
                await listener.take(sock, early)
                return
        sock.close()  # no longer served

    def leave(self, error: CorralError) -> None:
        """The addresses are another server's from now on; what follows logs or events is ended with `error`."""
        for listener in self._open.values():
            listener.forget_path()
            listener.end_endless(error)

    @property
    def is_half_way(self) -> bool:
        """A request has begun to come and is not there yet."""
        return any(listener.is_half_way for listener in self._open.values())

    @property
    def unanswered(self) -> int:
        """Requests that are being answered and would not go on for ever."""
        return sum(not each.endless for listener in self._open.values() for each in listener.app.active)

    async def close(self, grace_s: float) -> None:
        """Takes no new connection, lets running answers end for `grace_s`, then ends each with an error of its kind.

        Answers in `grace_s` plus a few seconds at most. A second call may only hasten the first.
        """
        deadline = clock.monotonic() + grace_s
        for listener in {*self._open.values(), *self._draining.values()}:
            self._retire(listener, deadline, _stopping())
        self._open.clear()
        while self._draining:
            await asyncio.wait(self._draining)


def _stopping() -> Stopping:
    return Stopping("Corral is shutting down", hint="send the request again once it is back", retry_after_s=5)


def _wanted(settings: Settings, control: Listen | None) -> dict[Listen, str | None]:
    """Addresses with the model of their own, if any. The control socket comes first: who sees the server's port open
    and gives a command must find it, or the command would start a server of its own."""
    wanted: dict[Listen, str | None] = {} if control is None else {control: None}
    wanted.update(dict.fromkeys(settings.listen))
    first = next((where for where in settings.listen if where.path is None), Listen())
    for model in settings.models.values():
        if model.port is not None:
            wanted[replace(first, port=model.port, dialect=None, page=None)] = model.name
    return wanted
