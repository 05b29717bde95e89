"""Wardens started by hand, and a raw client for their socket, with nothing of the daemon's in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import corral.warden
from corral.config.paths import Paths

PROGRAM = Path(corral.warden.__path__[0]) / "__main__.py"


class RawClient:
    """One connection: requests answered in turn, events kept aside."""

    def __init__(self, path: Path, role: str | None = "daemon") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(15)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self._next = 0
        self.warden_pid = 0
        if role:
            self.warden_pid = self.ask("hello", role=role)["pid"]

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The reply to one request, refused or not."""
        self._next += 1
        self.send(json.dumps({"id": self._next, "op": op, **arguments}).encode() + b"\n")
        return self.reply(self._next)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, number: int | None) -> dict[str, Any]:
        while True:
            message = self.line()
            assert message is not None, "the warden hung up"
            if "event" in message:
                self.events.append(message)
            elif message["id"] == number:
                return message

    def line(self) -> dict[str, Any] | None:
        """The next line, None at the end."""
        with contextlib.suppress(ConnectionError):
            line = self._lines.readline()
            return json.loads(line) if line else None
        return None

    def exited(self, unit: str) -> dict[str, Any]:
        """The unit's exit, waited for."""
        while True:
            for event in self.events:
                if event["unit"] == unit:
                    return event
            message = self.line()
            assert message is not None, "the warden hung up"
            self.events.append(message)

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


class Wardens:
    """Starts wardens on one state directory, attached to the test so that their end can be waited for."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[RawClient] = []

    def start(self, *, linger_s: float = 60, idle_s: float = 0.2) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-I", "-S", str(PROGRAM), "--socket", str(self.paths.warden_socket)]
        argv += ["--dir", str(self.paths.warden_dir), "--linger-s", str(linger_s), "--idle-s", str(idle_s)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._processes.append(process)
        assert process.stderr is not None
        self.said = process.stderr.readline().decode()  # the line that says it listens, or why not
        return process

    def client(self, role: str | None = "daemon") -> RawClient:
        client = RawClient(self.paths.warden_socket, role)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for process in self._processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                os.kill(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            assert process.stderr is not None
            process.stderr.close()
            assert process.poll() is not None, "the warden did not end"
