"""The doctor's findings, on this machine and on described ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from corral.cli import check_machine, check_programs, check_sandbox
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.hardware import cgroups
from corral.hardware.cpu import Cpu
from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory
from corral.hardware.probe import Hardware
from support.small_server import SmallServer

Corral = Callable[..., "subprocess.CompletedProcess[str]"]
GIB = 1 << 30


def test_report(corral: Corral, server: SmallServer) -> None:
    """On a machine where Corral works the doctor exits with 0, names the engine's version, and reaches the server."""
    run = corral("doctor", "--json")
    told = json.loads(run.stdout)
    by_name = {finding["name"]: finding for finding in told["findings"]}
    assert (run.returncode, told["ok"]) == (0, True), told
    assert by_name["llama.cpp embedded"]["level"] == "ok"
    assert by_name["llama.cpp embedded"]["text"].startswith("20")
    assert "version 9.9, process 77" in by_name["server"]["text"]
    assert all(f["fix"] for f in told["findings"] if f["level"] in ("missing", "error"))


def test_blockers(corral: Corral, paths: Paths) -> None:
    """A taken port and a broken configuration are errors, each with what to do, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        paths.config_dir.mkdir()
        paths.user_config.write_text(f"listen: [127.0.0.1:{taken.getsockname()[1]}]\nmodels: []\n")
        run = corral("doctor")
        assert run.returncode == 1
        assert "is taken by another program" in run.stdout
        assert "→ corral serve --listen 127.0.0.1:0" in run.stdout
    paths.user_config.write_text("modls: []\n")
    run = corral("doctor")
    assert run.returncode == 1
    assert "models.yaml:1" in run.stdout


def test_a_sandbox_that_models_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap, the finding is as bad as the configuration needs it, and names the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cgroups, "find", partial(cgroups.find, tmp_path, tmp_path / "none"))
    for settings, levels in (
        (None, ("missing", "missing")),
        (Settings({}), ("missing", "missing")),
        (Settings({}, sandbox="auto", limits=True), ("warn", "warn")),
        (Settings({"m": ModelSettings("m", tmp_path, sandbox="bubblewrap")}), ("error", "missing")),
    ):
        box, limits = check_sandbox.sandbox(settings)
        assert (box.level, limits.level) == levels
        assert "bwrap is not on PATH" in box.text and "bubblewrap" in box.fix
        assert "limits not enforced (this system has no control groups)" in limits.text


def test_engine_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends with a signal, or a llama-server that does not start, is a finding and not an accident."""
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\nkill -SEGV $$\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    embedded, server = check_programs.engines(str(broken))
    assert (embedded.level, server.level) == ("error", "warn")
    assert "killed by signal 11" in embedded.text
    broken.write_text("#!/bin/sh\necho 'version: 11434 (abc)' >&2\n")
    assert check_programs.engines()[1].text.endswith("version: 11434 (abc)")


MACHINE = Hardware("Linux 6", Memory(16 * GIB, 8 * GIB), Cpu("A CPU", "x86_64", 4, 8, 8.0, frozenset({"avx2"})), ())


def test_described() -> None:
    """A container's limit, a GPU that may not be opened and an old processor are said, with what mends them."""
    assert {f.level for f in check_machine.describe(MACHINE)} == {"ok"}
    closed = Gpu("amd", "AMD", "amdgpu", "/dev/dri/renderD128", problem="this user may not open /dev/dri/renderD128")
    small = Memory(16 * GIB, GIB, GIB, "/sys/fs/cgroup/memory.max")
    old = replace(MACHINE.cpu, features=frozenset({"sse2"}), usable=1.5)
    found = {f.name: f for f in check_machine.describe(replace(MACHINE, memory=small, gpus=(closed,), cpu=old))}
    assert "usermod -aG render" in found["gpu"].fix
    assert "limited to 1.0 GiB by /sys/fs/cgroup/memory.max" in found["memory"].text
    assert "1.5 usable here" in found["cpu"].text
    assert found["cpu features"].level == "warn"


def test_places(paths: Paths, tmp_path: Path) -> None:
    """A runtime directory that is too long for sockets is an error; good places are not."""
    assert {f.level for f in check_machine.places(paths)} <= {"ok", "warn"}
    long = replace(paths, runtime_dir=tmp_path / ("d" * 90))
    assert any(f.level == "error" and "too long for sockets" in f.text for f in check_machine.places(long))
