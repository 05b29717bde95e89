"""`corral health`: an exit code for probes, by a real server with a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from corral.config.paths import Paths
from support.server import Server, until


def _health(server: Server, *words: str) -> tuple[int, dict[str, object]]:
    command = [sys.executable, "-P", "-m", "corral", "health", *words, "--json"]
    done = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


def _named(told: dict[str, object]) -> list[tuple[str, bool]]:
    checks = told["checks"]
    assert isinstance(checks, list)
    return [(each["name"], each["ok"]) for each in checks]


def test_a_model_is_well_when_its_process_health_and_token_are(paths: Paths) -> None:
    """Not while it does not run, though it would start; not while its process is stopped; and well again after."""
    with Server(paths) as server:
        assert _health(server)[0] == 0
        code, told = _health(server, "demo")
        assert (code, _named(told)) == (1, [("process", False)])
        assert server.client.units() == []
        server.client.start("demo")
        code, told = _health(server, "demo")
        assert (code, _named(told)) == (0, [("process", True), ("health", True), ("canary", True)])
        pid = server.client.units()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            code, told = _health(server, "demo")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (code, _named(told)) == (1, [("process", False)])
        until(lambda: _health(server, "demo")[0] == 0, "well again")
        code, told = _health(server, "nobody")
        assert (code, _named(told)) == (1, [("model", False)])  # the server is well


def test_without_a_server_it_is_1(paths: Paths) -> None:
    """Not 3, as of other commands: a probe knows only well and not well."""
    server = Server(paths)
    code, told = _health(server)
    assert (code, told["ok"]) == (1, False)
