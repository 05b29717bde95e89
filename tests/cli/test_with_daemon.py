"""The commands against the real server and a real engine with the demo model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from corral.client import daemon_record
from corral.config.paths import Paths
from support.ptys import terminal
from support.server import Server, end_warden, until

Corral = Callable[..., "subprocess.CompletedProcess[str]"]
NO_PORT = {"CORRAL_LISTEN": "127.0.0.1:0"}


@pytest.fixture
def own_server(paths: Paths) -> Iterator[None]:
    """Ends the server that a command started for itself."""
    yield
    pid = daemon_record(paths).get("pid")
    if isinstance(pid, int):
        os.kill(pid, signal.SIGTERM)
        until(lambda: not paths.control_socket.exists(), "the command's own server to end")
    end_warden(paths)


def test_run_starts_a_server(corral: Corral, paths: Paths, own_server: None) -> None:
    """`run` with no server up starts one, says so on standard error, answers, and the next command finds it."""
    first = corral("run", "demo", "hello", "--temperature", "0", "--verbose", env=NO_PORT)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip()
    assert "started one (process" in first.stderr
    assert "tokens/s" in first.stderr
    second = corral("run", "demo", "hello", "--temperature", "0", env=NO_PORT)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    rows = corral("ps").stdout.splitlines()
    assert rows[1].split()[:4] == ["demo", "llama.cpp", "process", "ready"]
    assert (paths.state_dir / "serve.log").stat().st_mode & 0o077 == 0


def test_two_commands_start_one_server(corral_env: dict[str, str], paths: Paths, own_server: None) -> None:
    """Commands that find no server at the same moment end up with the same one."""
    argv = ["-m", "corral", "start", "demo", "--json"]
    children = [
        subprocess.Popen([sys.executable, *argv], env=corral_env | NO_PORT, stdout=-1, stderr=-1) for _ in range(2)
    ]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert json.loads(out)["state"] == "ready"


def test_of_several_commands_one_starts_the_server(corral_env: dict[str, str], paths: Paths, own_server: None) -> None:
    """Each of them says which server it has: one that it started it, the others that another command did, all with the
    process that runs."""
    argv = [sys.executable, "-m", "corral", "run", "demo", "hello"]
    children = [
        subprocess.Popen(argv, env=corral_env | NO_PORT, stdin=-3, stdout=-1, stderr=-1, text=True) for _ in range(3)
    ]
    said = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], said
    pid = daemon_record(paths)["pid"]
    ours = f"No server was up: started one (process {pid}); it ends after 5 idle minutes."
    theirs = f"No server was up: another command has just started one (process {pid})."
    lines = [each.strip() for each in said if each.strip()]  # one that comes late finds the server, and says nothing
    assert lines.count(ours) == 1 and {*lines} <= {ours, theirs}


def test_own_server_that_cannot_start(corral: Corral, paths: Paths) -> None:
    """When the server of one's own cannot start, its last words and its log are in the error."""
    paths.config_dir.mkdir()
    paths.user_config.write_text("modls: []\n")
    run = corral("run", "demo", "hello", env=NO_PORT)
    assert run.returncode == 3
    assert "modls" in run.stderr
    assert "serve.log" in run.stderr


def test_everything_else(corral: Corral, paths: Paths) -> None:
    """Each command that asks or changes something works on the real server."""
    with Server(paths) as server:
        started = json.loads(corral("start", "demo", "--json").stdout)
        assert (started["state"], started["changed"]) == ("ready", True)
        assert corral("list").stdout.splitlines()[1].split()[:3] == ["demo", "ready", "llama.cpp"]
        assert json.loads(corral("ps", "--json").stdout)[0]["memory_bytes"] > 0
        assert f"{server.pid}," in corral("status").stdout
        assert corral("logs", "demo", "-n", "3").stdout
        assert "ready" in corral("events", "--model", "demo").stdout
        assert corral("ps", "--host", server.url).returncode == 0
        assert corral("reload").returncode == 0
        assert corral("restart", "demo").returncode == 0
        assert corral("stop", "--all").returncode == 0
        stopped = corral("ps", "-a")
        assert "stopped" in stopped.stdout and stopped.stderr == "", "what was meant to be is no warning"
        nothing = corral("logs", "demo", "-n", "0")
        assert (nothing.stdout, nothing.stderr) == ("", "")
        assert json.loads(corral("ps", "--json").stdout) == []
        long = corral("run", "demo", "word " * 20_000)  # more than any demo can read
        assert (long.returncode, "exceeds the available context size" in long.stderr) != (0, False)
        assert long.stderr.splitlines()[-1].startswith("hint: send less") and "`context`" in long.stderr
        unknown = corral("start", "dmo")
        assert (unknown.returncode, "demo" in unknown.stderr) == (4, True)
        doctor = json.loads(corral("doctor", "--json").stdout)
        assert doctor["ok"], doctor
        assert f"server {server.greeting['version']}" in corral("version").stdout


def test_chat(corral_env: dict[str, str], paths: Paths) -> None:
    """A chat with the real model takes a parameter, answers in words of that model, and ends with Ctrl-D."""
    with Server(paths), terminal("run", "demo", env=corral_env | {"NO_COLOR": "1"}) as person:
        person.wait_for(">>> ")
        person.type("/set parameter temperature 0\r")
        person.wait_for("temperature is 0.0 now.")
        person.wait_for(">>> ")
        person.type("Hello!\r")
        person.wait_for("I am the Corral demo model")
        person.wait_for(">>> ")
        person.type("\x04")
        assert person.ended() == 0
        assert "error" not in person.seen


def test_chat_outlives_its_server(corral_env: dict[str, str], paths: Paths, own_server: None) -> None:
    """When a chat's own server has ended meanwhile, the next question starts another one and is answered."""
    with terminal("run", "demo", "--verbose", env=corral_env | NO_PORT) as person:
        person.wait_for(">>> ")
        os.kill(daemon_record(paths)["pid"], signal.SIGTERM)
        until(lambda: not paths.control_socket.exists(), "the server to end")
        person.type("hello\r")
        person.wait_for("started one (process")
        person.wait_for("tokens/s")
        person.wait_for(">>> ")
        person.type("/show\r")
        person.wait_for("the model's own, 1 at a time")
        person.type("/bye\r")
        assert person.ended() == 0
