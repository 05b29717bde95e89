"""A real `corral serve` in a process of its own, for tests of the whole program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from corral.api_store import PruneAsk
from corral.client import Client
from corral.config.paths import Paths
from corral.connection import Address

START_WITHIN_S = 30.0


@dataclass
class Server:
    """Starts on entering, ends on leaving. `url` is its TCP listener, on any free port unless `listen` says more; with
    an empty one, that of `config`."""

    paths: Paths
    config: str = "models: [{name: demo, source: 'builtin:demo'}]"
    flags: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    listen: str = "127.0.0.1:0"
    process: subprocess.Popen[str] | None = None
    greeting: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.paths.config_dir / "models.yaml"

    @property
    def pid(self) -> int:
        return int(self.greeting["pid"])

    @property
    def url(self) -> str:
        return f"http://{self.greeting['listen'][0]}"

    @property
    def client(self) -> Client:
        return Client(Address(socket=self.paths.control_socket))

    @property
    def environment(self) -> dict[str, str]:
        places = {f"CORRAL_{n.upper()}_DIR": str(getattr(self.paths, f"{n}_dir")) for n in _DIRECTORIES}
        return {**os.environ, **places, **self.env}

    def write(self, config: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(textwrap.dedent(config), encoding="utf-8")

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "corral", "--json", "serve", "--config", str(self.file),
            *(["--listen", self.listen] if self.listen else []), *self.flags,
        ]  # fmt: skip

    def spawning(self) -> dict[str, Any]:
        """More of what `subprocess.Popen` takes."""
        return {}

    def __enter__(self) -> Self:
        self.write(self.config)
        self.start()
        return self

    def start(self) -> None:
        errors = (self.paths.state_dir / "serve.err").open("a")
        with errors:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                **self.spawning(),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server did not start: {self.said()}"
        self.greeting = json.loads(line)

    def said(self) -> str:
        """What the server wrote on standard error."""
        return (self.paths.state_dir / "serve.err").read_text(encoding="utf-8")

    def kill(self) -> None:
        """kill -9: its engines go on, the warden too."""
        assert self.process is not None
        self.process.kill()
        self._wait()

    def end(self) -> int:
        """TERM, and the exit code."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        code = self.process.wait(START_WITHIN_S)
        self.process.stdout.close()
        return code

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end()
        if error is not None:
            with suppress(OSError):
                sys.stderr.write(f"--- the server said:\n{self.said()}\n")
        end_warden(self.paths)

    def empty(self) -> None:
        """Nothing runs, is stored or is recorded any more: for a server that several tests ask one after the other."""
        for model in {unit.model for unit in self.client.units() if unit.state != "stopped"}:
            self.client.stop(model)
        self.client.prune(PruneAsk(older_than_s=0.0))
        assert not [each for each in self.client.stored() if each.place is None]
        self.client.record(on=False)

    def states(self, model: str, since: int = 0) -> list[tuple[str, str]]:
        """Every state change of `model`'s units so far, or since that event: unit and new state."""
        found = self.client.events(since, model)
        return [(str(event.unit), event.data["after"]) for event in found if event.kind == "unit.state"]


_DIRECTORIES = ("config", "state", "cache", "runtime", "data")


def end_warden(paths: Paths) -> None:
    """Ends the warden of a server that was killed, and with it the engines. Nothing when there is none."""
    pids = [pid for pid in _processes() if str(paths.warden_socket) in _command(pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until(lambda: not any(str(paths.warden_socket) in _command(pid) for pid in pids), "the warden to end")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def until(condition: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """The first true value of `condition`. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}"
        time.sleep(0.01)
    return value
