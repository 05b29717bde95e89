"""`corral …` in a process of its own, forked from one that has imported what commands use.

It has its own arguments, environment, directory, descriptors, signals and end, as `python -m corral …` has; spared are
the interpreter's start and the imports, most of what a command costs. The first call of each command is
`python -m corral …` itself all the same, so that each is seen to start from nothing.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

IMPORTED = (
    "click", "corral.cli.main", "corral.cli.app", "corral.cli.group", "corral.cli.exits", "corral.client",
    "corral.config.load",
)  # fmt: skip

_STARTUP = ("PYTHON", "LANG", "LC_")
"""Variables that an interpreter reads when it starts begin with these."""


class Forks:
    """A process that forks for whoever asks; ended by `close`."""

    def __init__(self) -> None:
        self._started: set[tuple[str, ...]] = set()
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # Pipes, as the commands will have them: Python remembers what its standard streams can do.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        self._startup = _at_startup(os.environ)
        self._one_asks = threading.Lock()

    def close(self) -> None:
        self._asking.close()
        self._process.wait()

    def first(self, *command: str) -> bool:
        """Whether this was not asked before."""
        new = command not in self._started
        self._started.add(command)
        return new

    def run(
        self, args: Sequence[str], env: Mapping[str, str], *, module: str = "corral", input: str | None = None,
        timeout: float = 60, fresh: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """`python -m MODULE ARGS` to its end, as `subprocess.run` does it with `capture_output`; nothing is on standard
        input unless `input` is given. `more` is what only a process from nothing can have; without `fresh` the first
        call of a command is forked too."""
        first = self.first(module, *[each for each in args if not each.startswith("-")][:1])
        if (fresh and first) or more or _at_startup(env) != self._startup:
            stdin: dict[str, Any] = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
            return subprocess.run(
                [sys.executable, "-m", module, *args], env=dict(env), capture_output=True, text=True, timeout=timeout,
                check=False, **stdin, **more,
            )  # fmt: skip
        return self._forked(module, args, env, input, timeout)

    def _forked(
        self, module: str, args: Sequence[str], env: Mapping[str, str], input: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        given, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pipes = [os.pipe() for _ in range(3)]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        if input is None:
            os.close(pipes[0][0])
            pipes[0] = (os.open(os.devnull, os.O_RDONLY), ours[0])
        asked = json.dumps({"module": module, "args": list(args), "env": dict(env), "cwd": str(Path.cwd())}).encode()
        handed = [pipes[0][0], pipes[1][1], pipes[2][1], theirs.fileno()]
        with given:
            try:
                with self._one_asks:
                    socket.send_fds(self._asking, [len(asked).to_bytes(4, "big")], handed)
                    self._asking.sendall(asked)
            finally:
                theirs.close()
                for fd in handed[:3]:
                    os.close(fd)
            given.settimeout(timeout)
            found: list[str] = ["", ""]
            threads = [threading.Thread(target=_read, args=(fd, found, at)) for at, fd in enumerate(ours[1:])]
            for thread in threads:
                thread.start()
            try:
                _write(ours[0], input or "")
                with given.makefile("rb") as told:
                    code = _ended(told, timeout, [module, *args])
            finally:
                for thread in threads:
                    thread.join()
        return subprocess.CompletedProcess(["-m", module, *args], code, *found)


def _ended(told: BinaryIO, timeout: float, command: list[str]) -> int:
    """The exit code that comes after the process's number."""
    pid = int(told.readline())
    try:
        return int(told.readline())
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise subprocess.TimeoutExpired(command, timeout) from None


def _at_startup(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_STARTUP)}


def _read(fd: int, found: list[str], at: int) -> None:
    with open(fd, encoding="utf-8") as file:
        found[at] = file.read()


def _write(fd: int, text: str) -> None:
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except BrokenPipeError:
        return


def _serve(asking: socket.socket) -> dict[str, Any]:
    """Forks for each that asks. Comes back in the forked process, with what was asked; in this one never."""
    while True:
        size, fds, _, _ = socket.recv_fds(asking, 4, 4)
        if not size:
            os._exit(0)
        left, body = int.from_bytes(size, "big"), b""
        while len(body) < left:
            body += asking.recv(left - len(body))
        # One process waits for the command, so that many can run at a time and each tells its end.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asking.close()
        pid = os.fork()
        if pid:
            for fd in fds[:3]:
                os.close(fd)
            os.write(fds[3], f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            try:
                os.write(fds[3], f"{os.waitstatus_to_exitcode(status)}\n".encode())
            finally:
                os._exit(0)
        for at, fd in enumerate(fds[:3]):
            os.dup2(fd, at)
        for fd in fds:
            os.close(fd)
        found: dict[str, Any] = json.loads(body)
        return found


def _become(asked: dict[str, Any]) -> None:
    """As `python -m MODULE ARGS`, to this process's end."""
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path.insert(0, asked["cwd"])
    sys.argv[:] = ["-m", *asked["args"]]
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
