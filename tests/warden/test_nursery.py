"""Engines of the nursery are like those that are spawned plainly, and the nursery is never needed."""

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

import corral.warden
from corral.config.paths import Paths
from support import script_host
from support.engines import lives, said, until
from support.wardens import RawClient, Wardens

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux hands orphans to the warden")

HOST = [sys.executable, "-I", str(Path(script_host.__file__))]
NURSERY = [*HOST, "--nursery", str(Path(corral.warden.__path__[0]).parent.parent)]
ENV = {"PATH": "/usr/bin:/bin", "ONLY": "this"}
SLEEP = "import time; print('up', flush=True); time.sleep(60)"

Run = Callable[..., dict[str, Any]]
Process = subprocess.Popen[bytes]


def state(client: RawClient) -> dict[str, Any]:
    return client.ask("nursery")


def opened(client: RawClient, *extra: str, env: dict[str, str] = ENV) -> dict[str, Any]:
    """Asks for a nursery and returns its state once that is settled."""
    client.ask("nursery", argv=[*NURSERY, *extra], stands_for=HOST, env=env)
    return settled(client)


def settled(client: RawClient) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while (told := state(client))["state"] in ("starting", "none"):
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    return told


@pytest.fixture
def warden(wardens: Wardens) -> Process:
    return wardens.start()


@pytest.fixture
def client(warden: Process, wardens: Wardens) -> RawClient:
    return wardens.client()


@pytest.fixture(params=["exec", "nursery"])
def run(request: pytest.FixtureRequest, client: RawClient, paths: Paths) -> Run:
    """`run(unit, text, …)` starts an engine that runs Python, plainly or in the nursery; the same tests for both."""
    if request.param == "nursery":
        opened(client)

    def start(unit: str, text: str, **more: Any) -> dict[str, Any]:
        if request.param == "nursery":
            settled(client)
        fields = {"env": ENV, "log": str(paths.state_dir / f"{unit}.log")} | more
        reply = client.ask("spawn", unit=unit, argv=[*HOST, text], **fields)
        assert not reply["ok"] or reply["born"] == request.param
        return reply

    return start


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(client: RawClient, run: Run, code: int) -> None:
    """The exit code is the engine's own, and was not asked for."""
    run("a.1", f"sys.exit({code})")
    event = client.exited("a.1")
    assert (event["code"], event["signal"], event["asked"]) == (code, None, False)


def test_uncaught_error(client: RawClient, run: Run, paths: Paths) -> None:
    """An error that nothing catches ends an engine with 1 and a traceback in its log."""
    run("a.1", "raise ValueError('of the test')")
    assert client.exited("a.1")["code"] == 1
    text = (paths.state_dir / "a.1.log").read_text()
    assert "Traceback" in text
    assert text.endswith("ValueError: of the test\n")


def test_what_is_printed_is_not_lost(client: RawClient, run: Run, paths: Paths) -> None:
    """What stands in a buffer when the engine's program returns reaches the log."""
    run("a.1", "print('last words')")
    assert client.exited("a.1")["code"] == 0
    assert (paths.state_dir / "a.1.log").read_text() == "last words\n"


def test_signal(client: RawClient, run: Run) -> None:
    """A signal that ends an engine is told."""
    run("a.1", "import os; os.abort()")
    event = client.exited("a.1")
    assert (event["code"], event["signal"]) == (None, signal.SIGABRT)


@pytest.mark.parametrize("grace_s", [0, 30])
def test_stop_at_once(client: RawClient, run: Run, grace_s: float) -> None:
    """A stop in the moment of the start finds the engine, whatever it does just then."""
    run("a.1", SLEEP)
    client.ask("stop", unit="a.1", grace_s=grace_s)
    event = client.exited("a.1")
    assert event["asked"]
    assert event["signal"] in (signal.SIGTERM, signal.SIGKILL)


async def test_kill_follows_term(client: RawClient, run: Run, paths: Paths) -> None:
    """An engine that ignores TERM gets KILL."""
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    run("a.1", ignore)
    await said(paths.state_dir / "a.1.log", "deaf")
    client.ask("stop", unit="a.1", grace_s=0.05)
    assert client.exited("a.1")["signal"] == signal.SIGKILL


@pytest.mark.parametrize("moves", ["", "os.setsid(); ", "os.setpgid(0, 0); "])
async def test_nothing_is_left(client: RawClient, run: Run, paths: Paths, moves: str) -> None:
    """What an engine forked ends with it, in its group, a group of its own, or a session of its own."""
    fork = "import os, time\npid = os.fork()\nif pid == 0:\n    {}time.sleep(60)\n"
    script = fork.format(moves) + "print('child', pid, flush=True)\ntime.sleep(60)"
    run("a.1", script)
    child = int(await said(paths.state_dir / "a.1.log", r"child (\d+)"))
    other = run("b.1", SLEEP)["pid"]
    client.ask("stop", unit="a.1")
    client.exited("a.1")
    await until(lambda: not lives(child), "the engine's child to be killed")
    assert lives(other)


async def test_killed_warden_leaves_nothing(warden: Process, wardens: Wardens, run: Run, paths: Paths) -> None:
    """kill -9 of the warden ends its engines, the nursery and the spare; the next warden says that nobody saw how."""
    pid = run("a.1", SLEEP)["pid"]
    await said(paths.state_dir / "a.1.log", "up")
    family = psutil.Process(warden.pid).children(recursive=True)
    assert pid in {each.pid for each in family}
    warden.kill()
    await until(lambda: not any(lives(each.pid) for each in family), "all of the warden's children to end")
    wardens.start()
    (listed,) = wardens.client().ask("list")["engines"]
    assert (listed["unit"], listed["state"], listed["exit"]["signal"]) == ("a.1", "exited", None)


def test_log_is_appended_to(client: RawClient, run: Run, paths: Paths) -> None:
    """Output and errors are appended to the log, which is private when it is new."""
    log = paths.state_dir / "a.1.log"
    log.write_text("before\n")
    run("a.1", "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')")
    client.exited("a.1")
    assert log.read_text() == "before\nout\nerr\n"
    run("b.1", "pass")
    client.exited("b.1")
    assert (paths.state_dir / "b.1.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("more", "code", "about"),
    [({"cwd": "/nowhere"}, "ENOENT", "cwd"), ({"log": "/nowhere/a.log"}, "ENOENT", "log")],
)
async def test_what_cannot_start(client: RawClient, run: Run, more: dict[str, Any], code: str, about: str) -> None:
    """A working directory or log that cannot be is refused, and no engine is left."""
    reply = run("a.1", SLEEP, **more)
    assert (reply["error"]["code"], reply["error"]["about"]) == (code, about)
    assert client.ask("list")["engines"] == []
    assert client.events == []


LOOK = """
import json, os, signal, time
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
seen = {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "Threads", "Umask", "NoNewPrivs", "Name")}
seen["fds"] = sorted((name, os.readlink(f"/proc/self/fd/{name}")) for name in "012")
held = set(os.listdir("/proc/self/fd")) - {"0", "1", "2"}
seen["more fds"] = sorted(each for each in held if os.path.exists(f"/proc/self/fd/{each}"))
seen["flags"] = [open(f"/proc/self/fdinfo/{name}").read().split("flags:\\t")[1].split()[0] for name in "012"]
seen["argv"] = sys.argv[1:]
seen["cmdline"] = open("/proc/self/cmdline").read().split("\\0")
seen["environ"] = sorted(each for each in open("/proc/self/environ").read().split("\\0") if "CORRAL_MARK" not in each)
seen["os.environ"] = sorted(item for item in os.environ.items() if item[0] != "CORRAL_MARK")
seen["mark"] = os.environ["CORRAL_MARK"] in open("/proc/self/environ").read(), len(os.environ["CORRAL_MARK"])
child = os.popen("/usr/bin/env").read()
seen["inherited"] = "CORRAL_MARK=" + os.environ["CORRAL_MARK"] in child
seen["cwd"] = os.getcwd(), status["PPid"]
seen["leads"] = os.getsid(0) == os.getpgid(0) == os.getpid()
seen["limits"] = open("/proc/self/limits").read()
seen["oom"] = open("/proc/self/oom_score_adj").read(), os.getpriority(os.PRIO_PROCESS, 0)
print(json.dumps(seen))
"""


def test_what_an_engine_sees(client: RawClient, paths: Paths, short_tmp: Path) -> None:
    """Environment, arguments, name, descriptors, signals, session, parent and limits of an engine of the nursery are
    those of one that is spawned plainly."""
    seen = []
    for born in ("exec", "nursery"):
        if born == "nursery":
            opened(client)
        log = paths.state_dir / "a.log"
        log.write_text("")
        fields = {"env": ENV, "cwd": str(short_tmp), "log": str(log)}
        reply = client.ask("spawn", unit=f"{born}.1", argv=[*HOST, LOOK, "two"], **fields)
        assert (reply["born"], client.exited(f"{born}.1")["code"]) == (born, 0), log.read_text()
        seen.append(log.read_text().splitlines())
    assert json.loads(seen[0][0]) == json.loads(seen[1][0])
    assert '"more fds": []' in seen[0][0]
    assert '"mark": [true, 24], "inherited": true' in seen[0][0]
    assert '"leads": true' in seen[0][0]


def test_it_is_small(client: RawClient, warden: Process) -> None:
    """A nursery is one process and one that waits, and says how much memory it has for itself."""
    told = opened(client)
    children = psutil.Process(warden.pid).children(recursive=True)
    assert told["pid"] in {each.pid for each in children}
    assert len(children) == 2
    assert {each.num_threads() for each in children} == {1}
    assert 0 < told["pss_kb"] < 64 << 10


@pytest.mark.parametrize("victim", ["nursery", "spare"])
def test_it_comes_back(client: RawClient, warden: Process, paths: Paths, victim: str) -> None:
    """When the nursery or its spare is killed, engines are spawned plainly until another is there."""
    told = opened(client)
    pids = {each.pid for each in psutil.Process(warden.pid).children()}
    (spare,) = pids - {told["pid"]}
    os.kill(told["pid"] if victim == "nursery" else spare, signal.SIGKILL)
    gone = told["pid"] if victim == "nursery" else spare
    while lives(gone):
        time.sleep(0.002)
    seen: list[str] = []
    while "nursery" not in seen or len(seen) < 2:
        reply = client.ask("spawn", unit="a.1", argv=[*HOST, "sys.exit(4)"], env=ENV, log=str(paths.state_dir / "l"))
        assert reply["ok"]
        assert client.exited("a.1")["code"] == 4
        client.events.clear()
        seen.append(reply["born"])
        settled(client)
    assert "nursery" in seen


@pytest.mark.parametrize("victim", ["nursery", "spare"])
def test_a_stopped_one_harms_nobody(
    client: RawClient, warden: Process, wardens: Wardens, paths: Paths, victim: str
) -> None:
    """A nursery or a spare that hangs hinders neither other engines nor the warden's end."""
    told = opened(client)
    (spare,) = {each.pid for each in psutil.Process(warden.pid).children()} - {told["pid"]}
    os.kill(told["pid"] if victim == "nursery" else spare, signal.SIGSTOP)
    fields = {"env": ENV, "log": str(paths.state_dir / "l")}
    if victim == "spare":
        other = wardens.client()
        request = {"op": "spawn", "id": 77, "unit": "hangs.1", "argv": [*HOST, "pass"], **fields}
        other.send(json.dumps(request).encode() + b"\n")
        while not client.ask("list")["engines"]:
            pass
    seen = []
    for number in range(3):
        reply = client.ask("spawn", unit=f"a.{number}", argv=[*HOST, "sys.exit(4)"], **fields)
        assert client.exited(f"a.{number}")["code"] == 4
        seen.append(reply["born"])
    assert "exec" in seen
    if victim == "spare":
        client.ask("stop", unit="hangs.1", grace_s=0)
        assert client.exited("hangs.1")["signal"] in (signal.SIGTERM, signal.SIGKILL), (
            "told to go on, it may end in time"
        )
    client.ask("shutdown", grace_s=1)
    assert warden.wait(10) == 0


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"], "threads"),
        (["import os; os.open('/dev/dri/null', os.O_RDONLY)"], "ended"),
        (["import no_such_library"], "ended"),
    ],
)
def test_one_that_is_not_fit(client: RawClient, wardens: Wardens, paths: Paths, extra: list[str], words: str) -> None:
    """A library that starts a thread, or does not load, makes no nursery: that is said, and engines are spawned."""
    client.ask("nursery", argv=[*NURSERY, *extra], stands_for=HOST, env=ENV)
    deadline = time.monotonic() + 10
    while not (told := state(client))["why"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert told["state"] in ("unfit", "none")
    assert words in told["why"]
    reply = client.ask("spawn", unit="a.1", argv=[*HOST, "pass"], env=ENV, log=str(paths.state_dir / "l"))
    assert (reply["born"], client.exited("a.1")["code"]) == ("exec", 0)


@pytest.mark.parametrize(
    ("argv", "more"),
    [
        ([*HOST, "pass"], {"env": {**ENV, "OMP_NUM_THREADS": "1"}}),
        (["/bin/true"], {"env": ENV}),
        ([*HOST, "pass", "x" * 200_000], {"env": ENV}),
    ],
    ids=["environment", "program", "size"],
)
def test_others_are_spawned(client: RawClient, paths: Paths, argv: list[str], more: dict[str, Any]) -> None:
    """An engine with another environment (libraries read it when they are loaded) or program is spawned plainly."""
    opened(client)
    reply = client.ask("spawn", unit="a.1", argv=argv, log=str(paths.state_dir / "l"), **more)
    if len(argv[-1]) > 131071:
        assert reply["error"]["code"] == "E2BIG"  # what a plain spawn says of it
        return
    assert (reply["born"], client.exited("a.1")["code"]) == ("exec", 0)


def test_another_is_made_for_another_environment(client: RawClient, warden: Process) -> None:
    """Asking again for the same changes nothing; for another environment the nursery is replaced."""
    first = opened(client)
    assert opened(client)["pid"] == first["pid"]
    second = opened(client, env={**ENV, "TZ": "UTC"})
    assert second["pid"] != first["pid"]
    deadline = time.monotonic() + 10
    while len(psutil.Process(warden.pid).children(recursive=True)) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_many_births_leak_nothing(client: RawClient, warden: Process, paths: Paths) -> None:
    """After many engines the warden and the nursery have the descriptors of before, and no child but their own."""
    told = opened(client)
    both = [psutil.Process(warden.pid), psutil.Process(told["pid"])]
    before = _least_descriptors(both)
    for number in range(20):
        settled(client)
        reply = client.ask(
            "spawn", unit=f"a.{number}", argv=[*HOST, "pass"], env=ENV, log=str(paths.state_dir / "l"), cwd="/"
        )
        assert reply["born"] == "nursery"
        client.exited(f"a.{number}")
        client.ask("forget", unit=f"a.{number}")
    settled(client)
    assert _least_descriptors(both) == before
    assert len(both[0].children(recursive=True)) == 2


def _least_descriptors(processes: list[psutil.Process]) -> list[int]:
    """How many each has at rest: the nursery still closes a spare's socket while that says that it is there."""
    counts = []
    for _ in range(30):
        counts.append([each.num_fds() for each in processes])
        time.sleep(0.01)
    return [min(each) for each in zip(*counts, strict=True)]


def test_idle_warden_ends_with_it(wardens: Wardens) -> None:
    """A nursery does not keep a warden from ending, and ends with it."""
    process = wardens.start(idle_s=0.05)
    client = wardens.client()
    opened(client)
    family = psutil.Process(process.pid).children(recursive=True)
    client.close()
    assert process.wait(10) == 0
    psutil.wait_procs(family, timeout=10)
    assert not any(lives(each.pid) for each in family)
