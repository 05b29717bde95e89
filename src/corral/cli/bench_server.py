"""A server that exists for one benchmark: directories of its own, and gone with its engines afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from corral.config.paths import Paths
from corral.connection import Address
from corral.errors import Unreachable

START_S: Final = 60.0
STOP_S: Final = 60.0
IDLE_EXIT_S: Final = 900
"""It ends by itself after so long, should the command that started it be killed."""
WARDEN_S: Final = 20.0
"""How long the process that owns the engines may take to see that it has nothing left to do."""


class Alone:
    """Starts on entering, ends on leaving. `config` is the text of its models.yaml."""

    def __init__(self, config: str, paths: Paths) -> None:
        self._config, self._theirs = config, paths
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address(socket=self._paths.control_socket)

    def __enter__(self) -> Self:
        # Short, since sockets lie in it.
        self._place = Path(tempfile.mkdtemp(prefix="corral-bench-", dir="/tmp" if Path("/tmp").is_dir() else None))
        names = ("config", "state", "runtime", "data")
        self._paths = replace(self._theirs, **{f"{name}_dir": self._place / name for name in names})
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self._paths.config_dir.mkdir()
        self._paths.user_config.write_text(self._config, encoding="utf-8")
        places = {f"CORRAL_{n.upper()}_DIR": str(getattr(self._paths, f"{n}_dir")) for n in
                  ("config", "state", "cache", "runtime", "data")}  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name not in ("CORRAL_HOST", "CORRAL_KEY")}
        argv = [sys.executable, "-P", "-m", "corral", "serve", "--quiet", "--config", str(self._paths.user_config)]
        argv += ["--listen", "127.0.0.1:0", "--idle-exit", str(IDLE_EXIT_S)]
        with (self._place / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, env={**kept, **places}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        from corral.client import Client

        client, deadline = Client(self.address), time.monotonic() + START_S
        while not (self._paths.control_socket.exists() and client.answers()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._place / "serve.log").read_text(errors="replace").splitlines()[-12:]
                raise Unreachable("the server for the benchmark did not start", hint="see its words", log_tail=said)
            time.sleep(0.02)

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            deadline = time.monotonic() + WARDEN_S
            while self._paths.warden_socket.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        shutil.rmtree(self._place, ignore_errors=True)
