"""Taking over from a running server: its listening sockets, its waiting connections, and its engines.

The new server opens a socket and has the running one told of it. That one takes no new connection, lends its listening
sockets, lets every request get as far as an engine, and gives up the state directory. From then on the new server has
everything but the answers that still run, and is told how many those are, so that it leaves their engines alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

from corral.config.paths import Paths
from corral.connection import Address, request
from corral.errors import ConfigError, CorralError, NotFound, StateInUse, Unreachable
from corral.handover.passing import Inbox, Message
from corral.lazy_dataclass import dataclass
from corral.runners.link import PROTOCOL as WARDEN_PROTOCOL

PROTOCOL = 1
BEGIN_S = 10.0
"""How long the running server may take to begin; it says itself how long the rest may take."""
SPARE_S = 10.0


@dataclass
class Taken:
    """What the earlier server gave. The daemon goes on with `way`, over which the rest comes."""

    pid: int
    version: str
    way: socket.socket
    inbox: Inbox
    held: dict[str, int]  # answers that still run there, by model
    listening: dict[str, list[socket.socket]] = field(default_factory=dict)  # by address
    early: list[tuple[Message, socket.socket | None]] = field(default_factory=list)  # heard already, for the daemon

    def close(self) -> None:
        """For when nobody goes on with it. Idempotent."""
        self.way.close()
        self.inbox.close()
        for each in (*(sock for group in self.listening.values() for sock in group), *(s for _, s in self.early if s)):
            each.close()


def take_over(paths: Paths) -> Taken | None:
    """Has the running server of this state directory hand over; None when none runs.

    Nothing of it changes unless all goes well. Raises StateInUse, ConfigError, or the running server's own refusal.
    """
    if not _answers(paths.control_socket):
        return None
    _check_warden(paths.warden_socket)
    with _waiting_at(paths.handover_socket) as listener:
        try:
            with request(Address(socket=paths.control_socket), "POST", "/control/handover", {}):
                pass
        except Unreachable:
            return None  # it ended just now
        except NotFound as error:
            raise ConfigError(
                "the running server is of an older version, which cannot hand over",
                hint="end it and start this one: models are loaded again",
            ) from error
        listener.settimeout(BEGIN_S)
        try:
            way, _ = listener.accept()
        except TimeoutError:
            raise _failed("it did not begin in time") from None
    taken = Taken(0, "", way, Inbox(), {})
    try:
        _receive(taken)
    except BaseException:
        taken.close()
        raise
    return taken


def _receive(taken: Taken) -> None:
    """Everything up to the word that it is ours."""
    deadline = time.monotonic() + BEGIN_S
    while True:
        taken.way.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            messages = taken.inbox.receive(taken.way)
        except TimeoutError:
            raise _failed("it took too long") from None
        except (OSError, ValueError) as error:
            raise _failed(str(error)) from error
        if messages is None:
            raise _failed("it broke off; its log says why")
        for number, (message, sock) in enumerate(messages):
            match message.get("kind"):
                case "hello":
                    if message["protocol"] != PROTOCOL:
                        raise _failed(f"it speaks protocol {message['protocol']} for that, and this one {PROTOCOL}")
                    taken.pid, taken.version = message["pid"], message["version"]
                    deadline = time.monotonic() + message["within_s"] + SPARE_S
                case "listener" if sock is not None:
                    taken.listening.setdefault(message["where"], []).append(sock)
                case "lent":
                    taken.way.sendall(b'{"kind": "ready"}\n')
                case "yours":
                    taken.held = message["held"]
                    taken.early += messages[number + 1 :]
                    return
                case _:
                    taken.early.append((message, sock))


def early_bytes(message: Message) -> bytes:
    """What came of a passed connection's next request already."""
    return base64.b64decode(message["early"])


def connection_message(where: str, early: bytes) -> Message:
    return {"kind": "connection", "where": where, "early": base64.b64encode(early).decode()}


def connect(paths: Paths) -> socket.socket:
    """The running server's way to the one that waits to take over. Raises StateInUse when none does."""
    way = socket.socket(socket.AF_UNIX)
    try:
        way.connect(str(paths.handover_socket))
    except OSError as error:
        way.close()
        raise StateInUse(
            "no server waits to take over", hint="this is what `corral serve --handover` asks for"
        ) from error
    return way


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def _waiting_at(path: Path) -> Iterator[socket.socket]:
    if _answers(path):
        raise StateInUse("another server is taking over already", hint="wait for it, or end it")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {path}: {error.strerror}", hint="its directory must be yours"
            ) from error
        finally:
            os.umask(before)
        listener.listen(1)
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _check_warden(path: Path) -> None:
    """A warden of another protocol cannot be gone on with, and its engines neither."""
    with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError, ValueError):
        link.settimeout(BEGIN_S)
        link.connect(str(path))
        link.sendall(b'{"id":1,"op":"hello","role":"observer"}\n')
        said: dict[str, Any] = json.loads(link.makefile("rb").readline())
        theirs = said.get("protocol")
        if said.get("ok") and theirs != WARDEN_PROTOCOL:
            raise ConfigError(
                f"the engines belong to a warden of another version: it speaks protocol {theirs}, and this Corral "
                f"{WARDEN_PROTOCOL}",
                hint="end the running server and start this one: models are loaded again",
            )


def _failed(why: str) -> CorralError:
    return StateInUse(f"the running server did not hand over: {why}", hint="it goes on; `corral status` asks it")
