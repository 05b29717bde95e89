"""A server of the user's own for commands that need one and find none: detached, and gone when idle."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from corral.cli.app import App
from corral.cli.spinner import Spinner
from corral.errors import CorralError, Unreachable
from corral.state_lock import is_held

if TYPE_CHECKING:
    import subprocess

    from corral.client import Client

IDLE_EXIT_S = 300
START_S = 30.0
RIVAL_S = 10.0
"""When ours ended because another one was first, how long that one may take to answer."""


def ensure(app: App) -> Client:
    """The server there is, else a new one, up and answering.

    Never starts one where `--host` or CORRAL_HOST names a server. Raises Unreachable with the end of the new one's log.
    """
    if app.host or os.environ.get("CORRAL_HOST"):
        return app.client()
    try:
        client = app.client()
    except Unreachable:
        return _start(app)
    if not client.connects():
        return _start(app)
    with Spinner("waiting for the server", quiet=app.json):
        deadline = time.monotonic() + START_S
        while not client.answers() and time.monotonic() < deadline:
            time.sleep(0.02)
    return client


def _start(app: App) -> Client:
    import subprocess

    app.paths.make()
    log = app.paths.state_dir / "serve.log"
    began = log.stat().st_size if log.exists() else 0
    # -P: a directory called corral where the user happens to be must not be run as us.
    argv = [sys.executable, "-P", "-m", "corral", "serve", "--idle-exit", str(IDLE_EXIT_S)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    except OSError as error:
        raise Unreachable(f"cannot start a server: {error}", hint="start one yourself with: corral serve") from error
    finally:
        os.close(descriptor)
    with Spinner("starting the server", quiet=app.json):
        client = _answering(app, child)
    # It outlives this command on purpose: without this, the interpreter would warn about a child left behind.
    child.returncode = 0
    if client is None:
        raise Unreachable(
            "the server that was started does not answer",
            hint=f"see {log}, or run it in a terminal: corral serve",
            log_tail=_tail(log, began),
        )
    if not app.json:
        app.note(_whose(client.status().pid, child.pid))
    return client


def _whose(pid: int, ours: int) -> str:
    """Which server answers now: of several commands that start one at the same moment, one is first."""
    if pid != ours:
        return f"No server was up: another command has just started one (process {pid})."
    return f"No server was up: started one (process {pid}); it ends after {IDLE_EXIT_S // 60} idle minutes."


def _answering(app: App, child: subprocess.Popen[bytes]) -> Client | None:
    deadline, ended = time.monotonic() + START_S, False
    while time.monotonic() < deadline:
        try:
            client = app.client()
            if client.answers():
                return client
        except CorralError:
            pass  # not yet
        if not ended and child.poll() is not None:
            ended, deadline = True, time.monotonic() + (RIVAL_S if is_held(app.paths) else 0.0)
        time.sleep(0.02)
    return None


def _tail(log: Path, began: int) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(began, log.stat().st_size - 4096))
            return file.read().decode("utf-8", "replace").splitlines()[-12:]
    except OSError:
        return []
