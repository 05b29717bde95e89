"""One streamed chat request as a plain client sends it, timed to its first token. The same code for every side."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

Address = Path | tuple[str, int]
"""A unix socket, or host and port."""


class Refused(Exception):
    """The server does not listen, or answered with another status than 200."""


@dataclass(frozen=True)
class Timing:
    """Seconds from just before connecting (or sending, on a kept connection)."""

    first_token_s: float
    whole_s: float


def connect(address: Address) -> socket.socket:
    """A connected socket. Raises OSError."""
    if isinstance(address, Path):
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(address))
        except OSError:
            link.close()
            raise
    else:
        link = socket.create_connection(address)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.settimeout(120)
    return link


def body(model: str, max_tokens: int) -> bytes:
    return json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "What is Corral?"}],
            "stream": True,
            "temperature": 0,
            "max_tokens": max_tokens,
        }
    ).encode()


def request_bytes(model: str, max_tokens: int = 8) -> bytes:
    payload = body(model, max_tokens)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload


def chat(address: Address, request: bytes, kept: socket.socket | None = None) -> Timing:
    """Sends `request` and reads the stream to its end, on a fresh connection unless one is given.

    Raises Refused for an answer that is no 200, and OSError.
    """
    began = time.perf_counter()
    link = kept or connect(address)
    try:
        link.sendall(request)
        seen = bytearray()
        first = 0.0
        while not _ended(seen):
            chunk = link.recv(65536)
            if not chunk:
                break
            seen += chunk
            if not first and _has_token(seen):
                first = time.perf_counter()
        whole = time.perf_counter()
    finally:
        if kept is None:
            link.close()
    if not seen.startswith(b"HTTP/1.1 200") or not first:
        raise Refused(bytes(seen[:2000]).decode(errors="replace"))
    return Timing(first - began, whole - began)


def _ended(seen: bytearray) -> bool:
    # The last chunk of a chunked body; an engine that closes the connection instead ends the loop by that.
    return seen.endswith(b"0\r\n\r\n") and b"[DONE]" in seen[-64:]


def _has_token(seen: bytearray) -> bool:
    at = seen.find(b'"content":"')
    return at >= 0 and len(seen) > at + 11 and seen[at + 11] != ord('"')


def healthy(address: Address) -> bool:
    """Whether GET /health answers 200 now."""
    try:
        with connect(address) as link:
            link.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return link.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
