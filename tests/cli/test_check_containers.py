"""The doctor's words about containers, each with the command that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.cli.check_containers import Here, containers, of_docker, of_podman
from support import podman

GOOD = Here("u", root=False, subuids=True, newuidmap=True, runtime_dir=True, init=True)


def info(*, rootless: bool = True, version: str = "v2", controllers: tuple[str, ...] = ("memory", "pids")) -> Any:
    host = {"cgroupVersion": version, "cgroupControllers": list(controllers), "security": {"rootless": rootless}}
    return {"host": {**host, "ociRuntime": {"name": "crun"}}, "version": {"Version": "5.1"}}


def test_where_all_is_well() -> None:
    """Podman and its limits, both good."""
    assert [(each.name, each.level) for each in of_podman(info(), "", GOOD)] == [("podman", "ok"), ("limits", "ok")]


@pytest.mark.parametrize(
    ("told", "here", "name", "fix"),
    [
        (info(version="v1"), GOOD, "limits", "unified_cgroup_hierarchy"),
        (info(controllers=("cpu",)), GOOD, "limits", "Delegate="),
        (info(), Here("u", False, False, True, True, True), "subordinate ids", "usermod --add-subuids"),
        (info(), Here("u", False, True, False, True, True), "uidmap", "uidmap"),
        (info(), Here("u", False, True, True, False, True), "runtime directory", "enable-linger u"),
        (info(rootless=False), Here("root", True, False, True, True, True), "user namespace", "containers"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(told: Any, here: Here, name: str, fix: str) -> None:
    """Each doubt is a warning of its own."""
    [found] = [each for each in of_podman(told, "", here) if each.level == "warn"]
    assert found.name == name and fix in found.fix


def test_one_that_does_not_answer() -> None:
    """Podman's own words, or Docker's; no error, for nobody needs either."""
    [podman_] = of_podman(None, "cannot set up namespace", GOOD)
    assert podman_.level == "warn" and "cannot set up namespace" in podman_.text
    [docker] = of_docker({"ServerErrors": ["Cannot connect to the Docker daemon"]}, "")
    assert docker.level == "missing" and "Cannot connect" in docker.text
    assert of_docker({"ServerVersion": "28"}, "")[0].level == "ok"


@pytest.mark.parametrize(
    ("prints", "code", "level"),
    [
        ('{"ID":"","Containers":0,"ServerVersion":"","ClientInfo":{"Version":"28.5.1"}}', 1, "missing"),
        ('{"ServerVersion":"28.5.1"}', 1, "missing"),
        ('{"ID":"","ServerVersion":"","ClientInfo":{"Version":"28.5.1"}}', 0, "missing"),
        ('{"ID":"x","ServerVersion":"28.5.1"}', 0, "ok"),
    ],
)
def test_a_docker_whose_engine_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, code: int, level: str
) -> None:
    """Docker's program prints its document without its engine too, with empty values, and ends with 1."""
    program = tmp_path / "docker"
    said = "failed to connect to the docker API at unix:///var/run/docker.sock"
    program.write_text(f"#!/bin/sh\necho '{prints}'\n[ {code} = 0 ] || echo '{said}' >&2\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [found] = containers()
    assert (found.name, found.level) == ("docker", level)
    if code:
        assert said in found.text and found.fix


@pytest.mark.podman
def test_as_the_user_who_has_podman() -> None:
    """The real thing: whether limits are kept is told as Podman itself tells it."""
    user = podman.user()
    with podman.directories(user) as paths:
        told = json.loads(user.corral("--json", "doctor", paths=paths, check=False).stdout)
    found = {each["name"]: each for each in told["findings"] if each["area"] == "containers"}
    assert found["podman"]["level"] == "ok" and "rootless" in found["podman"]["text"]
    v1 = json.loads(user.podman("info", "--format", "json"))["host"]["cgroupVersion"] == "v1"
    assert (found["limits"]["level"] == "warn") or not v1
