"""Limits by control group, in the kernel's own hands where this user may make groups."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.engines.confined import limited
from corral.engines.plan import Limits
from corral.hardware import cgroups
from corral.hardware.cgroups import NotPermitted
from corral.runners.memory import family
from corral.runners.process import ProcessRunner
from support import sandboxes
from support.engines import plan_of, said
from support.server import until

EATS = """
import sys
held = []
print("begun", flush=True)
while True:
    held.append(bytearray(b"x" * (1 << 20)))
"""
FORKS = """
import subprocess, sys, time
children, why = [], "none"
for _ in range(60):
    try:
        children.append(subprocess.Popen(["sleep", "60"]))
    except OSError as error:
        why = type(error).__name__
        break
print(f"forked {len(children)}, then {why}", flush=True)
for each in children:
    each.kill()
time.sleep(60)
"""


async def test_memory_beyond_the_limit_ends_the_engine_alone(runner: ProcessRunner, paths: Paths) -> None:
    """The kernel ends what takes more than it may, and nobody else; the group is gone afterwards."""
    tree = sandboxes.limits()
    plan = replace(plan_of(sys.executable, "-c", EATS), limits=Limits(96 << 20, 64))
    running = await runner.start(plan, log := paths.logs_dir / "eats.log")
    await said(log, "begun")
    exit = await asyncio.wait_for(running.wait(), 60)
    assert (exit.signal, exit.asked, exit.limit_bytes) == (9, False, 96 << 20)
    await asyncio.sleep(0)
    assert not list(tree.folders["memory"].glob(f"corral-{plan.unit}-*"))


async def test_processes_beyond_the_limit_are_refused(runner: ProcessRunner, paths: Paths) -> None:
    """A fork bomb runs into its bound; what was born in the group is ended with the engine."""
    tree = sandboxes.limits()
    plan = replace(plan_of(sys.executable, "-c", FORKS), limits=Limits(256 << 20, 20))
    running = await runner.start(plan, log := paths.logs_dir / "forks.log")
    count = int(await said(log, r"forked (\d+), then BlockingIOError"))
    assert count < 20
    assert (await running.stop(5)).limit_bytes == 0
    await asyncio.sleep(0)
    assert not list(tree.folders["pids"].glob(f"corral-{plan.unit}-*"))


def test_children_that_have_ended_are_no_hindrance() -> None:
    """A group takes a process whose dead children nobody has waited for: they cannot be moved, and need not be."""
    tree = sandboxes.limits()
    # Kept in a name: what is forgotten asks after its process, and so waits for it.
    script = "import subprocess, sys; one = subprocess.Popen(['true']); print('ready', flush=True); sys.stdin.read()"
    group = tree.group("with the dead")
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdout.readline()
        (child,) = [each for each in family(parent.pid) if each != parent.pid]
        until(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "the child to end")
        group.make(64 << 20, 20)
        group.take(parent.pid, family)
        assert str(parent.pid) in (group.folders["pids"] / "cgroup.procs").read_text().split()
        parent.stdin.close()
    assert group.remove()


def test_a_group_is_made_with_its_limits_and_removed() -> None:
    """What is written is what the kernel then says; a group with nobody in it can go."""
    tree = sandboxes.limits()
    group = tree.group("a strange/name")
    try:
        group.make(64 << 20, 7)
        memory = group.folders["memory"]
        name = "memory.max" if tree.version == 2 else "memory.limit_in_bytes"
        assert int((memory / name).read_text()) == 64 << 20
        assert (group.folders["pids"] / "pids.max").read_text().strip() == "7"
        assert not group.hit()
        group.make(32 << 20, 7)
        assert int((memory / name).read_text()) == 32 << 20
    finally:
        assert group.remove()


def test_where_it_is_not_permitted_a_plan_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plan without its limits has the reason as a warning: never silently."""
    monkeypatch.setattr(cgroups.find, "__defaults__", (tmp_path, tmp_path / "none"))
    plan = limited(plan_of("x"))
    assert plan.limits is None
    assert plan.warnings == ("limits not enforced (this system has no control groups)",)


def version_2(tmp_path: Path, own: str, controllers: str, enabled: str, inside: str) -> tuple[Path, Path]:
    """Files as version 2 of control groups shows them. The kernel's own behaviour is not in them."""
    folder = tmp_path / "cgroup" / own.lstrip("/")
    folder.mkdir(parents=True)
    for name, text in (("controllers", controllers), ("subtree_control", enabled), ("procs", inside)):
        (folder / f"cgroup.{name}").write_text(text)
    (tmp_path / "own").write_text(f"0::{own}\n")
    return tmp_path / "cgroup", tmp_path / "own"


@pytest.mark.parametrize(
    ("controllers", "enabled", "inside", "why"),
    [
        ("cpu", "", "", "was not given the controllers memory, pids"),
        ("cpu memory pids", "", "1\n", "processes that are not Corral's"),
    ],
)
def test_version_2_says_what_is_missing(tmp_path: Path, controllers: str, enabled: str, inside: str, why: str) -> None:
    """No controllers, or other people's processes in the group: each is told with what to do."""
    with pytest.raises(NotPermitted, match=why):
        cgroups.find(*version_2(tmp_path, "/user.slice/a.scope", controllers, enabled, inside))


def test_version_2_finds_a_delegated_group(tmp_path: Path) -> None:
    """Where the controllers are handed on already, groups are made beside the server's own."""
    mount, own = version_2(tmp_path, "/system.slice/corral.service", "memory pids", "memory pids", "")
    own.write_text("0::/system.slice/corral.service/corral-server\n")
    tree = cgroups.find(mount, own)
    assert tree.version == 2
    group = tree.group("m.1")
    group.make(1 << 20, 5)
    assert (mount / "system.slice/corral.service/corral-m.1/memory.max").read_text() == str(1 << 20)
    assert (group.folders["pids"] / "pids.max").read_text() == "5"
