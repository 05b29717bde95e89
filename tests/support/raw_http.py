"""A small HTTP server on loopback whose answers a test writes byte by byte, as wrong as it likes."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # which of the server's connections it came on, from 1


Script = Callable[[Asked], "bytes | None"]
"""The whole answer to a request, or None: the connection is closed without one, as it is after `connection: close`."""


@dataclass
class RawServer:
    """What was asked, and where. `script` may be changed while it runs."""

    script: Script
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    stall: threading.Event = field(default_factory=threading.Event)  # set at the end: a script may wait for it

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    def paths(self) -> list[str]:
        return [f"{each.method} {each.path}" for each in self.asked]


def answer(status: int = 200, body: bytes = b"", *, length: bool = True, **headers: str) -> bytes:
    """An answer's bytes; `content_type="x"` is the header Content-Type."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    if length:
        headers.setdefault("content_length", str(len(body)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_answer(value: Any, status: int = 200, **headers: str) -> bytes:
    headers["content_type"] = "application/json"
    return answer(status, json.dumps(value).encode(), length=True, **headers)


def at(paths: Mapping[str, bytes | Callable[[Asked], bytes | None]], otherwise: bytes | None = None) -> Script:
    """A script by `METHOD /path` without its query; 404 for the rest."""

    def script(asked: Asked) -> bytes | None:
        found = paths.get(f"{asked.method} {asked.path.partition('?')[0]}")
        if found is None:
            return otherwise or answer(404)
        return found if isinstance(found, bytes) else found(asked)

    return script


@contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """A running server; all its threads have ended afterwards."""
    server = RawServer(script)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connections.append(sock)
            threads.append(threading.Thread(target=_talk, args=(server, sock, len(connections), tls), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        server.stall.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for sock in connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


def _talk(server: RawServer, sock: socket.socket, number: int, tls: ssl.SSLContext | None) -> None:
    with (
        contextlib.suppress(OSError),
        contextlib.closing(tls.wrap_socket(sock, server_side=True) if tls else sock) as s,
    ):
        file = s.makefile("rb")
        with file:
            while asked := _read(file, number):
                server.asked.append(asked)
                data = server.script(asked)
                if data is None:
                    return
                s.sendall(data)
                if b"connection: close" in data.partition(b"\r\n\r\n")[0].lower():
                    return
    sock.close()


def _read(file: Any, number: int) -> Asked | None:
    line = file.readline().decode("latin-1").strip()
    if not line:
        return None
    method, path, _ = line.split(" ")
    headers = {}
    while head := file.readline().decode("latin-1").strip():
        name, _, value = head.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, file.read(int(headers.get("content-length", 0))), number)
