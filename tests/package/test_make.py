"""What a newcomer types, where it can go wrong before anything is installed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import ROOT

FIND = ROOT / "tools" / "find-python"


def _program(place: Path, name: str, script: str) -> None:
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(0o755)


def _find(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FIND], capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def own_find(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the script outside the checkout, so that it does not find the environment there."""
    copy = short_tmp / "checkout" / "tools" / "find-python"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(FIND.read_bytes())
    copy.chmod(0o755)
    monkeypatch.setitem(globals(), "FIND", copy)
    return copy


def test_shims_that_only_print_an_error_are_passed_over(own_find: Path, short_tmp: Path) -> None:
    """A python3 on PATH that does not run, or is too old, is passed over for one that does."""
    place = short_tmp / "bin"
    _program(place, "python3", "echo 'not installed' >&2; exit 127")
    _program(place, "python3.13", "exit 11")
    _program(place, "python3.12", f'exec "{sys.executable}" "$@"')
    found = _find(PATH=f"{place}:/usr/bin:/bin")
    assert (found.returncode, found.stdout.strip()) == (0, "python3.12")


def test_a_python_that_was_named_is_used_or_refused(own_find: Path, short_tmp: Path) -> None:
    """PYTHON=… is taken when it serves, and otherwise an error: no other one is taken behind one's back."""
    assert _find(PATH="/usr/bin:/bin", PYTHON=sys.executable).stdout.strip() == sys.executable
    refused = _find(PATH="/usr/bin:/bin", PYTHON=str(short_tmp / "none"))
    assert refused.returncode == 1
    assert "does not run" in refused.stderr


def test_no_python_is_one_clear_error(own_find: Path, short_tmp: Path) -> None:
    """Without a Python that serves, the message says which is needed and how to name one."""
    place = short_tmp / "bin"
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        _program(place, name, "exit 11")
    _program(place, "dirname", 'exec /usr/bin/dirname "$@"')
    text = own_find.read_text().replace("/usr/bin/python3", str(place / "python3"))
    own_find.write_text(text)
    found = _find(PATH=str(place))
    assert (found.returncode, found.stdout) == (1, "")
    assert "no Python 3.11" in found.stderr
    assert "PYTHON=" in found.stderr


def test_a_python_without_venv_names_the_package(own_find: Path, short_tmp: Path) -> None:
    """A Python that is new enough but lacks ensurepip, as Debian's, leads to the package that has it."""
    place = short_tmp / "bin"
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        _program(place, name, "exit 12")
    _program(place, "dirname", 'exec /usr/bin/dirname "$@"')
    own_find.write_text(own_find.read_text().replace("/usr/bin/python3", str(place / "python3")))
    assert "python3-venv" in _find(PATH=str(place)).stderr


def test_a_port_in_use_is_one_clear_error() -> None:
    """`make run` on a port that is taken says so, with a way out, and starts nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "run_demo.py"],
            env=os.environ | {"PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "PORT=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["many", "99999", "-1"])
def test_a_port_that_is_none_is_one_clear_error(port: str) -> None:
    """`make run PORT=…` with what is no port says so."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "run_demo.py"],
        env=os.environ | {"PORT": port},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_newcomer_sees_a_streamed_answer(paths: object, corral_env: dict[str, str]) -> None:
    """`make run ONCE=1`, its environment being there, prints the demo model's answer with its rates, and ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "run_demo.py"],
        env=corral_env | {"PORT": port, "ONCE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n> What is Corral?\nCorral is " in done.stdout
    assert "TTFT" in done.stdout
    assert "tokens/s" in done.stdout


def test_test_all_makes_what_every_tier_needs() -> None:
    """`make test-all` runs each target that the tests of some tier, or tests that are skipped otherwise, need: those
    that may fail on a machine do not keep the others from running."""
    said = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "test-all"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    needed = (
        "install_prometheus",
        "install_podman",
        "install_vllm",
        "install_vision",
        "install_browser",
        "install_clients",
    )
    missing = [name for name in (*needed, "install-tmux", "install-registry", "--variant vulkan") if name not in said]
    assert not missing
    assert said.count("will be skipped") == 8


def test_each_tier_names_its_own_target(pytestconfig: pytest.Config) -> None:
    """What a summary says of a tier that was not run is the target that makes what it needs, and no other."""
    tiers = re.findall(r"not (\w+)", (ROOT / "pyproject.toml").read_text().partition('"-m", "')[2].partition("]")[0])
    needs = dict(line.split(": needs ") for line in pytestconfig.getini("markers") if ": needs " in line)
    assert len(tiers) > 5 and needs.keys() >= set(tiers)
    for tier in tiers:
        assert re.findall(r"`make ([a-z-]+)", needs[tier]) == [{"long": "test"}.get(tier, tier)]
        assert f"\n{tier}:" in (ROOT / "Makefile").read_text() or tier == "long"
    assert "test-all" not in (ROOT / "tests" / "support" / "notrun.py").read_text()
