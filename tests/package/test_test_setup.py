"""The tests' own frame."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral.config.paths import Paths, find_paths
from support import leftovers


def test_home_is_empty_and_own(tmp_path: Path) -> None:
    """Each test has an empty home of its own and none of the caller's CORRAL_* or XDG_* variables."""
    assert list(Path.home().iterdir()) == []
    assert not [name for name in os.environ if name.startswith("XDG_")]


def test_paths_are_isolated_and_short(paths: Paths, corral_env: dict[str, str]) -> None:
    """The directories of a test lie in its own short directory, and child processes find the same ones."""
    assert find_paths(corral_env) == paths
    assert len(os.fsencode(paths.units_dir / "x.sock")) <= 80
    assert paths.runtime_dir.is_dir()


def test_an_open_file_is_noticed(tmp_path: Path) -> None:
    """A file that stays open is named by the check after each test."""
    before = leftovers.look()
    with (tmp_path / "open").open("w"):
        assert any("open" in line for line in leftovers.since(before, 0.05))
    assert leftovers.since(before) == []


def test_a_running_child_is_noticed() -> None:
    """A child that still runs, or that nobody waited for, is named by the check after each test."""
    before = leftovers.look()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert any(str(child.pid) in line for line in leftovers.since(before, 0.05))
    finally:
        child.kill()
        child.wait()
    assert leftovers.since(before) == []


async def test_a_running_task_is_noticed() -> None:
    """A task that still runs is named by the check after each test."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.Event().wait(), name="left-behind")
    assert any("left-behind" in line for line in await leftovers.tasks_since(before, 0.05))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leftovers.tasks_since(before) == []


def test_a_detached_process_is_noticed(short_tmp: Path) -> None:
    """A process that names the test's directory is found even when it is nobody's child, and is ended."""
    script = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)',sys.argv[1]])"
    subprocess.run([sys.executable, "-c", script, str(short_tmp)], check=True)
    assert any(str(short_tmp) in line for line in leftovers.processes_naming(short_tmp, 0.05))
    assert leftovers.processes_naming(short_tmp) == []
