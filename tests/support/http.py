"""One HTTP request over a unix socket, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def unix_request(
    path: Path, method: str, target: str, body: Any = None, *, timeout_s: float = 10.0
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers (names in lower case) and body of one answer. `body` is sent as JSON unless it is bytes.

    Blocks. Raises OSError when nothing listens.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Connection": "close"} | ({} if data is None else {"Content-Type": "application/json"})
        connection.request(method, target, data, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def wait_healthy(path: Path, alive: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Returns once `/health` on the socket answers 200; fails when the engine ends first or time is up."""
    deadline = time.monotonic() + within_s
    while True:
        assert alive(), f"the engine ended before {path} was ready"
        assert time.monotonic() < deadline, f"{path} was not ready within {within_s:.0f} s"
        try:
            if unix_request(path, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.005)
