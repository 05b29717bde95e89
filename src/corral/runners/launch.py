"""Starting the warden: a detached process, run by its path with the bare interpreter, and never a child of ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import corral.warden
from corral.config.paths import Paths
from corral.errors import ConfigError
from corral.runners.environment import engine_environment

ANOTHER_RUNS = 3
"""The warden's exit code when another one holds the lock. Source: docs/warden.md."""

LOG_KEPT_BYTES = 1 << 20
"""The warden's own log starts afresh once it is larger; it says a few lines a day."""


LINGER_S, IDLE_S = 600.0, 5.0
"""How long a warden waits for a daemon to come back, and how long it stays with nothing to do."""


def warden_log(paths: Paths) -> Path:
    """The file in which the warden says what it did."""
    return paths.state_dir / "warden.log"


def warden_command(paths: Paths, *, linger_s: float, idle_s: float) -> list[str]:
    """The argv that starts a detached warden. `-I -S`: nothing of the environment or site-packages is loaded."""
    program = Path(corral.warden.__path__[0]).absolute() / "__main__.py"
    places = ["--socket", str(paths.warden_socket), "--dir", str(paths.warden_dir)]
    times = ["--linger-s", str(linger_s), "--idle-s", str(idle_s)]
    return [sys.executable, "-I", "-S", "-X", "utf8", str(program), *places, *times, "--detach"]


def begin_warden(paths: Paths, *, linger_s: float = LINGER_S, idle_s: float = IDLE_S) -> subprocess.Popen[bytes]:
    """Starts a warden without waiting: the process given back ends once the lasting one listens, or another has the
    lock. Raises OSError."""
    log = _open_log(warden_log(paths))
    try:
        return subprocess.Popen(
            warden_command(paths, linger_s=linger_s, idle_s=idle_s),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=engine_environment({}),
            start_new_session=True,
        )
    finally:
        os.close(log)


async def start_warden(paths: Paths, *, linger_s: float, idle_s: float) -> bool:
    """Starts a warden and returns once it listens; False when another one has the lock, and may be ending.

    The process we start forks the lasting one and ends, so no zombie is left to the daemon.

    Raises ConfigError when it cannot run here.
    """
    log = await asyncio.to_thread(_open_log, warden_log(paths))
    try:
        process = await asyncio.create_subprocess_exec(
            *warden_command(paths, linger_s=linger_s, idle_s=idle_s),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=engine_environment({}),
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"the warden cannot be started with {sys.executable!r}: {error.strerror}",
            hint="Corral's own Python interpreter must be there; install Corral again",
        ) from error
    finally:
        os.close(log)
    code = await process.wait()
    if code not in (0, ANOTHER_RUNS):
        raise ConfigError(
            f"the warden did not start (exit code {code})",
            hint=f"{warden_log(paths)} says why; a socket's path may have 103 bytes at most",
        )
    return code == 0


def _open_log(path: Path) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if os.fstat(fd).st_size > LOG_KEPT_BYTES:
        os.ftruncate(fd, 0)
    return fd
