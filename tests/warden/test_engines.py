"""What the warden does with engines: start, watch, end, and leave nothing."""

from __future__ import annotations

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
from support.wardens import RawClient, Wardens

Spawn = Callable[..., dict[str, Any]]
Process = subprocess.Popen[bytes]

pytestmark = pytest.mark.usefixtures("warden")

SH = ("/bin/sh", "-c")
FAKE = (sys.executable, "-S", "-E", str(FAKE_ENGINE), "--port", "0")


@pytest.fixture
def client(warden: Process, wardens: Wardens) -> RawClient:
    return wardens.client()


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code_is_told(client: RawClient, spawn: Spawn, code: int) -> None:
    """An engine that ends by itself is reported with its exit code, as not asked for."""
    assert spawn(client, "a.1", *SH, f"exit {code}")["ok"]
    event = client.exited("a.1")
    assert (event["code"], event["signal"], event["asked"]) == (code, None, False)
    assert abs(event["at"] - time.time()) < 60


def test_signal_is_told(client: RawClient, spawn: Spawn) -> None:
    """An engine that a signal ended is reported with that signal."""
    spawn(client, "a.1", *SH, "kill -SEGV $$")
    event = client.exited("a.1")
    assert (event["code"], event["signal"], event["asked"]) == (None, signal.SIGSEGV, False)


def test_stop_is_term_and_asked(client: RawClient, spawn: Spawn) -> None:
    """Stop sends TERM, and the exit says that it was asked for."""
    spawn(client, "a.1", "/bin/sleep", "60")
    assert client.ask("stop", unit="a.1", grace_s=30)["state"] == "stopping"
    event = client.exited("a.1")
    assert (event["signal"], event["asked"]) == (signal.SIGTERM, True)


async def test_kill_follows_an_ignored_term(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """An engine that ignores TERM gets KILL when the grace is over, even when the asker hung up meanwhile."""
    pid = spawn(client, "a.1", *FAKE, "--ignore-term")["pid"]
    await said(paths.state_dir / "a.1.log", "ignoring TERM")
    client.ask("stop", unit="a.1", grace_s=0.2)
    client.close()
    await until(lambda: not lives(pid), "the engine to be killed")
    later = RawClient(paths.warden_socket)
    await until(lambda: later.ask("list")["engines"][0]["state"] == "exited", "the exit to be listed")
    (listed,) = later.ask("list")["engines"]
    later.close()
    assert (listed["exit"]["signal"], listed["exit"]["asked"]) == (signal.SIGKILL, True)


async def test_a_stopped_engine_hears_term(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """An engine that SIGSTOP has frozen ends by TERM like any other: nobody waits for KILL."""
    pid = spawn(client, "a.1", *SH, "echo up; exec sleep 60")["pid"]
    await said(paths.state_dir / "a.1.log", "up")
    os.kill(pid, signal.SIGSTOP)
    client.ask("stop", unit="a.1", grace_s=3600)
    await until(lambda: client.ask("list")["engines"][0]["state"] == "exited", "the exit to be listed")
    (listed,) = client.ask("list")["engines"]
    assert listed["exit"]["signal"] == signal.SIGTERM


@pytest.mark.parametrize("flag", ["--fork-child", "--fork-session"])
async def test_nothing_is_left_of_one_that_forks(client: RawClient, spawn: Spawn, paths: Paths, flag: str) -> None:
    """When an engine ends, children it left are killed, in its group or (on Linux) in a session of their own."""
    if flag == "--fork-session" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells whose orphan it is")
    spawn(client, "a.1", *FAKE, flag)
    child = int(await said(paths.state_dir / "a.1.log", r"child pid (\d+)"))
    assert lives(child)
    client.ask("stop", unit="a.1", grace_s=30)
    assert client.exited("a.1")["signal"] == signal.SIGTERM
    await until(lambda: not lives(child), "the engine's child to be killed")
    await until(lambda: not psutil.Process(client.warden_pid).children(), "the warden to have no zombie")


async def test_one_engines_end_leaves_another_and_its_children(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """The end of one engine touches neither another engine nor what that one forked."""
    spawn(client, "a.1", *FAKE, "--fork-session")
    child = int(await said(paths.state_dir / "a.1.log", r"child pid (\d+)"))
    pid = spawn(client, "b.1", "/bin/sleep", "60")["pid"]
    client.ask("stop", unit="b.1")
    client.exited("b.1")
    assert not lives(pid)
    assert lives(child)
    assert client.ask("list")["engines"][0]["state"] == "running"


@pytest.mark.parametrize(
    ("argv", "more", "code", "about"),
    [
        (("/nowhere/engine",), {}, "ENOENT", "executable"),
        (("no-such-program",), {"env": {"PATH": "/usr/bin"}}, "ENOENT", "executable"),
        (("/bin/true",), {"cwd": "/nowhere"}, "ENOENT", "cwd"),
    ],
)
def test_what_cannot_start_is_refused(
    client: RawClient, spawn: Spawn, argv: tuple[str, ...], more: dict[str, Any], code: str, about: str
) -> None:
    """A spawn that does not get as far as the program is refused with the errno's name, and leaves no engine."""
    reply = spawn(client, "a.1", *argv, **more)
    assert not reply["ok"]
    assert (reply["error"]["code"], reply["error"]["about"]) == (code, about)
    assert client.ask("list")["engines"] == []
    assert client.events == []


@pytest.mark.parametrize(("mode", "code"), [(0o600, "EACCES"), (0o700, "ENOEXEC")])
def test_what_is_no_program_is_refused(client: RawClient, spawn: Spawn, short_tmp: Path, mode: int, code: str) -> None:
    """A file that may not be executed, or is no program, is refused with the system's reason."""
    file = short_tmp / "file"
    file.write_text("words")
    file.chmod(mode)
    assert spawn(client, "a.1", str(file))["error"]["code"] == code


def test_unwritable_log_is_refused(client: RawClient, paths: Paths) -> None:
    """An engine whose log cannot be opened is not started; its output must not get lost."""
    reply = client.ask("spawn", unit="a.1", argv=["/bin/true"], log=str(paths.state_dir / "no" / "a.log"))
    assert (reply["error"]["code"], reply["error"]["about"]) == ("ENOENT", "log")


def test_engine_gets_what_was_given_and_no_more(client: RawClient, spawn: Spawn, paths: Paths, short_tmp: Path) -> None:
    """An engine sees the given environment (and the warden's mark), working directory, no descriptor above 2,
    and default signals."""
    where = str(short_tmp.resolve())
    script = "env; pwd; ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status; echo done"
    spawn(client, "a.1", *SH, script, env={"PATH": "/usr/bin:/bin", "ONLY": "this"}, cwd=where)
    client.exited("a.1")
    lines = (paths.state_dir / "a.1.log").read_text().splitlines()
    assert "ONLY=this" in lines
    assert where in lines
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "ONLY", "CORRAL_MARK"}
    if sys.platform.startswith("linux"):
        assert "4" in lines  # 0, 1, 2 and the directory that ls reads
        assert "SigBlk:\t0000000000000000" in lines
        ignored = int(next(line for line in lines if line.startswith("SigIgn:")).split()[1], 16)
        # 32 and 33 are the C library's own: under make they are ignored, and no program can change that.
        assert ignored & ~(1 << 31 | 1 << 32) == 0


def test_engine_leads_its_own_session(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """An engine is the leader of a session and a process group; its log is private and appended to."""
    log = paths.state_dir / "a.1.log"
    log.write_text("before\n")
    log.chmod(0o600)
    pid = spawn(client, "a.1", *SH, "echo out; echo err >&2; sleep 60")["pid"]
    assert os.getsid(pid) == os.getpgid(pid) == pid
    while not log.read_text().endswith("err\n"):
        client.ask("list")
    client.ask("stop", unit="a.1")
    client.exited("a.1")
    assert log.read_text() == "before\nout\nerr\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_list_tells_what_was_given(client: RawClient, spawn: Spawn, wardens: Wardens, paths: Paths) -> None:
    """Another client learns of each engine: its state, pid, log, start, and the plan as it was given."""
    plan = {"any": ["thing", 1, None, "\udcff"]}
    pid = spawn(client, "a.1", "/bin/sleep", "60", plan=plan)["pid"]
    (listed,) = wardens.client("observer").ask("list")["engines"]
    assert listed["plan"] == plan
    assert (listed["unit"], listed["pid"], listed["state"], listed["exit"]) == ("a.1", pid, "running", None)
    assert listed["log"] == str(paths.state_dir / "a.1.log")
    assert abs(listed["started_wall_s"] - psutil.Process(pid).create_time()) < 5


def test_exits_are_pushed_to_every_client(client: RawClient, spawn: Spawn, wardens: Wardens) -> None:
    """Each client that said hello is told of each exit."""
    other = wardens.client("observer")
    spawn(client, "a.1", *SH, "exit 7")
    assert client.exited("a.1")["code"] == other.exited("a.1")["code"] == 7


def test_forget_removes_the_record(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """A living engine cannot be forgotten; an ended one can, and its record goes."""
    spawn(client, "a.1", "/bin/sleep", "60")
    assert len(list(paths.warden_dir.glob("*.json"))) == 1
    assert client.ask("forget", unit="a.1")["error"]["code"] == "alive"
    client.ask("stop", unit="a.1")
    client.exited("a.1")
    assert client.ask("forget", unit="a.1")["ok"]
    assert list(paths.warden_dir.glob("*.json")) == []
    assert client.ask("forget", unit="a.1")["error"]["code"] == "unknown_unit"


def test_a_units_name_is_taken_while_it_lives(client: RawClient, spawn: Spawn) -> None:
    """A second spawn of a living unit is refused; of an ended one it takes the place."""
    spawn(client, "a.1", "/bin/sleep", "60")
    assert spawn(client, "a.1", "/bin/sleep", "60")["error"]["code"] == "unit_exists"
    client.ask("stop", unit="a.1", grace_s=0)
    client.exited("a.1")
    client.events.clear()
    assert spawn(client, "a.1", *SH, "exit 0")["ok"]
    assert client.exited("a.1")["code"] == 0


def test_stop_twice_only_hastens(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """A second stop with a shorter grace brings KILL earlier, and stopping an ended engine tells its exit."""
    spawn(client, "a.1", *SH, "trap '' TERM; echo trapped; while :; do sleep 60; done")
    while "trapped" not in (paths.state_dir / "a.1.log").read_text():
        client.ask("list")
    client.ask("stop", unit="a.1", grace_s=600)
    client.ask("stop", unit="a.1", grace_s=0)
    assert client.exited("a.1")["signal"] == signal.SIGKILL
    assert client.ask("stop", unit="a.1")["exit"]["signal"] == signal.SIGKILL


def test_signal_reaches_the_group(client: RawClient, spawn: Spawn, paths: Paths) -> None:
    """Any signal can be sent to an engine's group; a bad number and an ended engine are refused."""
    spawn(client, "a.1", *SH, "trap 'echo usr1; exit 5' USR1; echo trapped; while :; do sleep 0.01; done")
    while "trapped" not in (paths.state_dir / "a.1.log").read_text():
        client.ask("list")
    assert client.ask("signal", unit="a.1", signal=9999)["error"]["code"] == "bad_request"
    # The shell's own child dies of it, so the loop goes on to the trap.
    client.ask("signal", unit="a.1", signal=int(signal.SIGUSR1))
    assert client.exited("a.1")["code"] == 5
    assert client.ask("signal", unit="a.1", signal=15)["error"]["code"] == "exited"


def test_many_spawns_leak_nothing(client: RawClient, spawn: Spawn) -> None:
    """After fifty engines the warden has the descriptors of before, and no child."""
    spawn(client, "warm.1", "/bin/true")
    client.exited("warm.1")
    process = psutil.Process(client.warden_pid)
    before = process.num_fds()
    for number in range(50):
        assert spawn(client, f"a.{number}", "/bin/true" if number % 5 else "/nowhere")["ok"] is bool(number % 5)
        if number % 5:
            client.exited(f"a.{number}")
            client.ask("forget", unit=f"a.{number}")
    assert process.num_fds() <= before, "before, one may not have been closed yet"
    assert process.children() == []
