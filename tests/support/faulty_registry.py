"""A registry over real HTTP that does, on request, what a good one does not.

It serves manifests and blobs from memory as the OCI distribution specification says, with ranges and kept connections.
A `Fault` is used up by the next requests whose path contains its text. Everything asked and sent is written down.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from corral.descriptors import MANIFEST, digest_of

CONFIG = "application/vnd.docker.ai.model.config.v0.1+json"
GGUF = "application/vnd.docker.ai.gguf.v3"
_PIECE = 64 << 10


@dataclass
class Fault:
    """What to do wrong, to how many requests (`times`; -1 = all). Several that fit are used up one after another."""

    path: str = "/blobs/"
    times: int = 1
    status: int = 0  # answer with this
    headers: dict[str, str] = field(default_factory=dict)  # more headers, whatever is answered
    whole: bool = False  # as if there were no ranges
    cut_after: int | None = None  # close the connection after so many bytes of the body
    stall_after: int | None = None  # send nothing more after so many bytes, until the server is let go
    shift: int = 0  # send a range that starts so many bytes later, and say so
    lie: int = 0  # add this to the size that is told
    no_length: bool = False  # do not say how long it is
    content: bytes | None = None  # send this content instead
    pace_s: float = 0.0  # wait before each piece
    then: Callable[[], None] | None = None  # called when it is used


@dataclass
class Asked:
    """One request, and how much of an answer's body it got."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    first: int = 0  # the offset of the first byte sent
    sent: int = 0
    over: bool = False  # all of the answer was sent, or the client went away


@dataclass
class FaultyRegistry:
    """What it has, what it was asked, and what it will do wrong."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)  # "ai/tiny:latest" and "ai/tiny@sha256:…" → content
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    token_uses: int | None = None  # ask for bearer tokens, each good for so many requests
    cdn: bool = False  # redirect blobs to signed addresses, each good for one request
    etag: str = ""
    let_go: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    tokens: dict[str, int] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)
    made: int = 0
    sending: int = 0  # answers with content on their way now
    most_sending: int = 0

    def model(self, name: str, *layers: bytes, tag: str = "latest", sizes: tuple[int, ...] = ()) -> str:
        """Adds `name:tag` with these layers; `sizes` may lie about them. The manifest's digest."""
        config = json.dumps({"config": {"format": "gguf"}, "files": len(layers), "of": name}).encode()
        told = [*sizes, *(len(layer) for layer in layers[len(sizes) :])]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": self.add(config), "size": len(config)},
                "layers": [
                    {"mediaType": GGUF, "digest": self.add(layer), "size": size}
                    for layer, size in zip(layers, told, strict=True)
                ],
            }
        ).encode()
        digest = digest_of(manifest)
        self.manifests[f"{name}:{tag}"] = self.manifests[f"{name}@{digest}"] = manifest
        return digest

    def add(self, blob: bytes) -> str:
        digest = digest_of(blob)
        self.blobs[digest] = blob
        return digest

    def sent_of(self, digest: str) -> list[tuple[int, int]]:
        """Which bytes of a blob were sent: (first, how many), in the order of the requests."""
        with self.lock:
            return [(each.first, each.sent) for each in self.asked if digest in each.path and each.sent]

    def take(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.path in path and fault.times:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving() -> Iterator[FaultyRegistry]:
    """A registry on a port of its own, on loopback."""
    registry = FaultyRegistry()

    class Handler(_Handler):
        pass

    Handler.registry = registry
    server = _Server(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        registry.let_go.set()
        server.shutdown()
        thread.join()
        server.close_all()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[Any] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[Any, Any]:
        request, address = super().get_request()
        self._open.add(request)
        return request, address

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def close_all(self) -> None:
        """Ends kept connections, so that their threads end: both ways, for the other side may keep its own open."""
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what the tests are about


class _Handler(BaseHTTPRequestHandler):
    registry: FaultyRegistry
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers)
        with self.registry.lock:
            self.registry.asked.append(asked)
        try:
            self._respond(asked)
        finally:
            asked.over = True

    def _respond(self, asked: Asked) -> None:
        registry, path, headers = self.registry, urlsplit(self.path).path, asked.headers
        fault = registry.take(path)
        if fault is not None and fault.then is not None:
            fault.then()
        if fault is not None and fault.status:
            return self._answer(asked, fault.status, b"{}", fault.headers)
        if path == "/token":
            with registry.lock:
                registry.made += 1
                token = f"t{registry.made}"
                registry.tokens[token] = registry.token_uses or 0
            return self._answer(asked, 200, json.dumps({"token": token, "expires_in": 300}).encode())
        if path.startswith("/cdn/"):
            with registry.lock:
                known = self.path in registry.signed
                registry.signed.discard(self.path)
            if not known:
                return self._answer(asked, 403, b"expired")
            return self._content(asked, registry.blobs[path.removeprefix("/cdn/")], fault)
        if registry.token_uses is not None and not self._has_token(headers):
            challenge = f'Bearer realm="http://{registry.host}/token",service="faulty"'
            return self._answer(asked, 401, b"{}", {"WWW-Authenticate": challenge})
        if path == "/v2/":
            return self._answer(asked, 200, b"{}")
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            mark = "@" if match[2].startswith("sha256:") else ":"
            data = registry.manifests.get(f"{match[1]}{mark}{match[2]}")
            if data is None:
                return self._answer(asked, 404, b"{}")
            more = {"Docker-Content-Digest": digest_of(data), "Content-Type": MANIFEST}
            return self._answer(asked, 200, data, more)
        match = re.fullmatch(r"/v2/.+/blobs/(sha256:[0-9a-f]{64})", path) or re.fullmatch(r"/file/(.+)", path)
        if match is None or match[1] not in registry.blobs:
            return self._answer(asked, 404, b"{}")
        if registry.cdn:
            with registry.lock:
                registry.made += 1
                signed = f"/cdn/{match[1]}?signed={registry.made}"
                registry.signed.add(signed)
            return self._answer(asked, 307, b"", {"Location": f"http://{registry.host}{signed}"})
        return self._content(asked, registry.blobs[match[1]], fault)

    def _has_token(self, headers: dict[str, str]) -> bool:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        with self.registry.lock:
            left = self.registry.tokens.get(token, 0)
            self.registry.tokens[token] = left - 1
        return left > 0

    def _answer(self, asked: Asked, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        asked.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _content(self, asked: Asked, content: bytes, fault: Fault | None) -> None:
        fault = fault or Fault()
        content = content if fault.content is None else fault.content
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", "")) if not fault.whole else None
        first, last = 0, len(content) - 1
        if wanted is not None:
            first = int(wanted[1]) + fault.shift
            last = min(int(wanted[2] or last), last)
            if first > last:
                self._answer(asked, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
        asked.status, asked.first = 206 if wanted is not None else 200, first
        self.send_response(asked.status)
        told = len(content) + fault.lie
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{'*' if fault.no_length else told}")
        if self.registry.etag:
            self.send_header("ETag", self.registry.etag)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        part = memoryview(content)[first : last + 1]
        if fault.no_length and wanted is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(part) + (fault.lie if wanted is None else 0)))
        self.end_headers()
        if self.command != "HEAD":
            self._count(1)
            try:
                self._send(asked, part, fault)
            finally:
                self._count(-1)

    def _count(self, more: int) -> None:
        with self.registry.lock:
            self.registry.sending += more
            self.registry.most_sending = max(self.registry.most_sending, self.registry.sending)

    def _send(self, asked: Asked, part: memoryview, fault: Fault) -> None:
        ends = [limit for limit in (fault.cut_after, fault.stall_after) if limit is not None]
        most = min([len(part), *ends])
        while asked.sent < most:
            if fault.pace_s and self.registry.let_go.wait(fault.pace_s):
                break
            piece = part[asked.sent : min(most, asked.sent + _PIECE)]
            self.wfile.write(piece)
            asked.sent += len(piece)
        if fault.stall_after is not None:
            self.registry.let_go.wait(60)
        if ends or fault.lie:
            self.close_connection = True


def noise(size: int, seed: int = 0) -> bytes:
    """Content in which no two parts are alike, made quickly."""
    block = hashlib.shake_256(str(seed).encode()).digest(64 << 10)
    parts = [block[:-8] + (seed << 32 | number).to_bytes(8, "big") for number in range(-(-size // len(block)))]
    return b"".join(parts)[:size]
