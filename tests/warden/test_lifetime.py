"""How long a warden lives, and what it leaves to the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from corral.config.paths import Paths
from support.engines import FAKE_ENGINE, lives, said, until
from support.wardens import Wardens

Spawn = Callable[..., dict[str, Any]]
FAKE = (sys.executable, "-S", "-E", str(FAKE_ENGINE), "--port", "0")
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")


async def test_daemon_gone_without_bye(wardens: Wardens, spawn: Spawn) -> None:
    """When the last daemon's connection breaks, die-with-daemon engines are stopped and the others go on."""
    wardens.start()
    daemon, observer = wardens.client(), wardens.client("observer")
    leashed = spawn(daemon, "a.1", "/bin/sleep", "60", leash="die-with-daemon")["pid"]
    free = spawn(daemon, "b.1", "/bin/sleep", "60", leash="survive")["pid"]
    daemon.close()
    assert observer.exited("a.1")["asked"] is True
    assert not lives(leashed)
    assert lives(free)
    again = wardens.client()
    assert {each["unit"]: each["state"] for each in again.ask("list")["engines"]} == {"a.1": "exited", "b.1": "running"}


async def test_leash_holds_while_another_daemon_is_there(wardens: Wardens, spawn: Spawn) -> None:
    """One of two daemon connections may break without consequence."""
    wardens.start()
    first, second = wardens.client(), wardens.client()
    pid = spawn(first, "a.1", "/bin/sleep", "60", leash="die-with-daemon")["pid"]
    first.close()
    assert [each["state"] for each in second.ask("list")["engines"]] == ["running"]
    assert lives(pid)


def test_bye_keeps_the_leashed(wardens: Wardens, spawn: Spawn) -> None:
    """A daemon that says bye leaves its engines running, whatever their leash."""
    wardens.start()
    daemon = wardens.client()
    pid = spawn(daemon, "a.1", "/bin/sleep", "60", leash="die-with-daemon")["pid"]
    daemon.ask("bye")
    daemon.close()
    assert [each["state"] for each in wardens.client().ask("list")["engines"]] == ["running"]
    assert lives(pid)


def test_idle_warden_ends(wardens: Wardens, paths: Paths) -> None:
    """A warden without engines ends some time after its last client left, and takes its socket along."""
    process = wardens.start(idle_s=0.05)
    wardens.client().close()
    assert process.wait(10) == 0
    assert not paths.warden_socket.exists()


def test_linger_ends_everything(wardens: Wardens, spawn: Spawn) -> None:
    """Engines that no daemon comes back to are stopped after the linger time, and the warden ends."""
    process = wardens.start(linger_s=0.2)
    daemon = wardens.client()
    pid = spawn(daemon, "a.1", "/bin/sleep", "60")["pid"]
    daemon.close()
    assert process.wait(10) == 0
    assert not lives(pid)


def test_term_stops_engines_and_ends(wardens: Wardens, spawn: Spawn, paths: Paths) -> None:
    """TERM to the warden stops its engines; their exits are told and recorded, and the socket goes."""
    process = wardens.start()
    client = wardens.client()
    pid = spawn(client, "a.1", "/bin/sleep", "60")["pid"]
    process.send_signal(signal.SIGTERM)
    assert client.exited("a.1")["signal"] == signal.SIGTERM
    assert process.wait(10) == 0
    assert not lives(pid)
    assert not paths.warden_socket.exists()


def test_shutdown_refuses_new_work_and_ends(wardens: Wardens, spawn: Spawn) -> None:
    """While shutting down a warden starts nothing and greets nobody; then it ends."""
    process = wardens.start()
    client = wardens.client()
    spawn(client, "a.1", "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done")
    while "up" not in (wardens.paths.state_dir / "a.1.log").read_text():
        client.ask("list")
    assert client.ask("shutdown", grace_s=0.5)["ok"]
    assert spawn(client, "b.1", "/bin/true")["error"]["code"] == "shutting_down"
    assert wardens.client(None).ask("hello")["error"]["code"] == "shutting_down"
    assert client.exited("a.1")["signal"] == signal.SIGKILL
    assert process.wait(10) == 0


def test_only_one_warden_per_state_directory(wardens: Wardens) -> None:
    """A second warden on the same directory ends at once with code 3 and leaves the first alone."""
    wardens.start()
    client = wardens.client()
    assert wardens.start().wait(10) == 3
    assert "another one runs" in wardens.said
    assert client.ask("list")["ok"]


@linux_only
async def test_killed_warden_leaves_no_engine(wardens: Wardens, spawn: Spawn, paths: Paths) -> None:
    """Engines end with a warden that is killed -9; what they forked is ended by the next one, which lists them as
    exited without anybody having seen how."""
    first = wardens.start()
    client = wardens.client()
    pid = spawn(client, "a.1", *FAKE, "--fork-session", plan={"n": 1})["pid"]
    child = int(await said(paths.state_dir / "a.1.log", r"child pid (\d+)"))
    first.kill()
    await until(lambda: not lives(pid), "the engine to end with the warden")
    assert paths.warden_socket.exists()
    wardens.start()
    (listed,) = wardens.client().ask("list")["engines"]
    assert not lives(child)
    assert (listed["unit"], listed["state"], listed["plan"]) == ("a.1", "exited", {"n": 1})
    assert (listed["exit"]["code"], listed["exit"]["signal"]) == (None, None)


def test_leftover_is_ended_by_the_next_warden(wardens: Wardens, paths: Paths) -> None:
    """A process that runs on under a record of its pid and start time is ended."""
    left = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    _record(paths, left.pid, _identity(left.pid))
    wardens.start()
    (listed,) = wardens.client().ask("list")["engines"]
    assert left.wait(10) == -signal.SIGKILL
    assert listed["state"] == "exited"


def test_reused_pid_is_left_alone(wardens: Wardens, paths: Paths) -> None:
    """A process that merely has the pid of a record, but another start time, is not touched."""
    innocent = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    _record(paths, innocent.pid, _identity(innocent.pid) + "0")
    wardens.start()
    (listed,) = wardens.client().ask("list")["engines"]
    assert listed["state"] == "exited"
    assert lives(innocent.pid)
    innocent.kill()
    innocent.wait(10)


def test_bad_records_do_no_harm(wardens: Wardens, paths: Paths) -> None:
    """Files that are no records are removed; the warden comes up."""
    for name, text in {"a": "{", "b": "[]", "c": '{"unit": 1, "pid": 1}', "d": "\0"}.items():
        (paths.warden_dir / f"{name}.json").write_text(text)
    (paths.warden_dir / "e.json.tmp").write_text("half")
    wardens.start()
    assert wardens.client().ask("list")["engines"] == []
    assert [path.name for path in paths.warden_dir.iterdir()] == ["lock"]


def test_exit_survives_the_warden(wardens: Wardens, spawn: Spawn) -> None:
    """How an engine ended is still known to the warden after the next."""
    first = wardens.start(idle_s=0.05)
    client = wardens.client()
    spawn(client, "a.1", "/bin/sh", "-c", "exit 9")
    client.exited("a.1")
    client.close()
    assert first.wait(10) == 0
    wardens.start()
    (listed,) = wardens.client().ask("list")["engines"]
    assert listed["exit"]["code"] == 9


@linux_only
def test_warden_is_small(wardens: Wardens) -> None:
    """The warden keeps to itself: no module of Corral's, no site-packages, one thread, at most 16 MiB resident."""
    process = psutil.Process(wardens.start().pid)
    wardens.client().ask("list")
    assert process.num_threads() == 1
    assert process.memory_info().rss < 16 << 20
    assert not [each.path for each in process.memory_maps() if "site-packages" in each.path]


def _identity(pid: int) -> str:
    # The same two figures the warden compares, read here on its own.
    if not sys.platform.startswith("linux"):
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return " ".join(listed.stdout.split())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def _record(paths: Paths, pid: int, identity: str) -> None:
    record = {"unit": "a.1", "pid": pid, "identity": identity, "leash": "survive", "log": "/dev/null", "plan": None}
    record |= {"argv": ["x"], "cwd": "/", "started_wall_s": time.time(), "state": "running", "exit": None}
    (paths.warden_dir / f"{os.urandom(4).hex()}.json").write_text(json.dumps(record))
