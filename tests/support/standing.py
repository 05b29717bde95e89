"""A server that somebody else runs: an engine in a process of its own that Corral did not start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from corral.demo.where import demo_model
from corral.engines import embedded_host
from support.engines import FAKE_ENGINE

WITHIN_S = 60.0


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Standing:
    """One such server. It can be killed and started again, at the same address."""

    def __init__(self, folder: Path, *flags: str, port: int = 0, fake: bool = False) -> None:
        """On 127.0.0.1 with a `port`, else on a unix socket in `folder`. `fake`: not the embedded engine with the demo
        model, but the engine that misbehaves on request."""
        self.socket = None if port else folder / "standing.sock"
        self.endpoint = f"http://127.0.0.1:{port}" if port else f"unix:{self.socket}"
        self.log = folder / "standing.log"
        self._port = port
        self.command: Sequence[str]
        if fake:
            where = ["--port", str(port)] if port else ["--listen", str(self.socket)]
            self.command = [sys.executable, "-S", "-E", str(FAKE_ENGINE), *where, *flags]
        else:
            where = ["--host", "127.0.0.1", "--port", str(port)] if port else ["--host", str(self.socket)]
            model = ["--model", str(demo_model()), "--alias", "the-demo", "--threads", "1"]
            self.command = [*embedded_host.command(), *model, *where, *flags]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Returns once it listens."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + WITHIN_S
        while not self._listens():
            assert self.lives and time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.02)

    def _listens(self) -> bool:
        family = socket.AF_INET if self.socket is None else socket.AF_UNIX
        with closing(socket.socket(family)) as asking:
            return asking.connect_ex(("127.0.0.1", self._port) if self.socket is None else str(self.socket)) == 0

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(WITHIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lives:
            self.kill()
