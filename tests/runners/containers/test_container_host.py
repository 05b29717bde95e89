"""What container engines say of themselves and their containers, as they really said it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.runners.containers.host import docker_host, ended_as, image_of, podman_host, seen_of
from corral.runners.containers.local import readable_by_all

V1: dict[str, Any] = {
    "host": {
        "cgroupVersion": "v1",
        "cgroupControllers": ["memory", "pids", "cpu"],
        "ociRuntime": {"name": "runc"},
        "security": {"rootless": True, "selinuxEnabled": False},
        "serviceIsRemote": False,
    },
    "version": {"Version": "4.3.1"},
}


def host(**changes: Any) -> dict[str, Any]:
    return {**V1, "host": {**V1["host"], **changes}}


@pytest.mark.parametrize(
    ("told", "enforces"),
    [
        (host(), set()),
        (host(security={"rootless": False}), {"memory", "pids"}),
        (host(cgroupVersion="v2"), {"memory", "pids"}),
        (host(cgroupVersion="v2", cgroupControllers=["cpu"]), set()),
        (host(cgroupVersion="v2", cgroupControllers=["pids"]), {"pids"}),
    ],
)
def test_limits_that_podman_really_keeps(told: dict[str, Any], enforces: set[str]) -> None:
    """Rootless on cgroup v1 it ignores them silently; on v2 it has what was delegated."""
    found = podman_host(told, subuids=False, init=True, owner="1000:1000")
    assert found.enforces == enforces and bool(found.why_not) == (len(enforces) < 2)
    assert found.version == "4.3.1" and found.runtime == "runc"


def test_podman_behind_dockers_api() -> None:
    """It tells no Docker client that it is rootless; where it keeps images does."""
    info = {
        "DockerRootDir": "/home/u/.local/share/containers/storage",
        "MemoryLimit": True,
        "PidsLimit": True,
        "CgroupVersion": "1",
        "SecurityOptions": ["name=seccomp,profile=default"],
        "ServerVersion": "4.3.1",
    }
    found = docker_host(info, {"Components": [{"Name": "Podman Engine"}]}, owner="1000:1000")
    assert found.emulated and found.rootless and found.enforces == frozenset() and found.owner == "0:0"
    real = docker_host({**info, "DockerRootDir": "/var/lib/docker", "CgroupVersion": "2"}, {}, owner="1000:1000")
    assert not real.rootless and real.enforces == {"memory", "pids"} and real.owner == "1000:1000"


def test_a_container_s_state() -> None:
    """Running, created and never started, ended."""
    up = seen_of({"Id": "a", "Name": "/n", "State": {"Status": "running", "Running": True, "Pid": 7, "ExitCode": 0,
                                                    "StartedAt": "2026-01-01T00:00:00Z"}})  # fmt: skip
    assert (up.name, up.running, up.pid, up.exit_code) == ("n", True, 7, None)
    made = seen_of({"State": {"Status": "created", "Pid": 0, "StartedAt": "0001-01-01T00:00:00Z"}})
    assert not made.running and made.exit_code is None and not made.started
    over = seen_of({"State": {"Status": "exited", "ExitCode": 137, "Pid": 0, "StartedAt": "2026-01-01T00:00:00Z"}})
    assert over.exit_code == 137 and over.pid is None
    assert ended_as(137) == (None, 9) and ended_as(0) == (0, None) and ended_as(255) == (255, None)


def test_an_image() -> None:
    """Its id without the algorithm, and an entry point in either spelling."""
    assert image_of({"Id": "sha256:ab", "Config": {"Entrypoint": ["/x"]}}).id == "ab"
    assert image_of({"Id": "ab", "Config": {"Entrypoint": "/x"}}).entrypoint == ("/x",)
    assert image_of({"Id": "ab"}).entrypoint == ()


def test_a_folder_is_readable_as_far_as_what_lies_in_it_is(tmp_path: Path) -> None:
    """One file that only its owner may read makes the whole folder so."""
    folder = tmp_path / "model"
    folder.mkdir(mode=0o755)
    (folder / "config.json").touch(mode=0o644)
    (folder / "model.safetensors").touch(mode=0o600)
    assert not readable_by_all([folder])
    (folder / "model.safetensors").chmod(0o644)
    assert readable_by_all([folder])
