"""A detector in a container: planned, started, asked and stopped as on this machine."""

from __future__ import annotations

import http.client
import json
import shutil
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.config.paths import Paths
from support import podman, server
from support.detecting import TINY, encoded, scene

pytestmark = [pytest.mark.podman, pytest.mark.timeout(400)]

MODEL = "models: [{{name: shapes, engine: detector, source: {folder}, runner: {runner}, gpu_layers: 0}}]"


def detected(asked: server.Server, picture: bytes) -> list[Any]:
    link = http.client.HTTPConnection(urlsplit(asked.url).netloc, timeout=300)
    try:
        link.request("POST", "/detect", picture, {"content-type": "image/png"})
        answer = link.getresponse()
        said = json.loads(answer.read())
        assert answer.status == 200, said
        found: list[Any] = said["images"]
        return found
    finally:
        link.close()


def test_a_detector_moves_into_a_container_by_one_word(paths: Paths) -> None:
    """It finds the same there, shut in, and nothing of it is left when it is stopped."""
    user = podman.user()
    picture = encoded(scene().image)
    with server.Server(paths, MODEL.format(folder=TINY, runner="process")) as plain:
        expected = detected(plain, picture)
    assert expected[0]["detections"]
    with podman.directories(user) as places:
        folder = places.data_dir / "tiny"
        shutil.copytree(TINY, folder)
        user.owns(places.data_dir)
        with podman.Server(places, MODEL.format(folder=folder, runner="podman"), who=user) as shut_in:
            assert detected(shut_in, picture) == expected
            (unit,) = shut_in.client.units()
            assert (unit.engine, unit.runner, unit.state) == ("detector", "podman", "ready")
            label = f"label=io.corral.unit={unit.unit}"
            ours = [each for each in user.containers(label) if str(places.runtime_dir) in bound(user, each)]
            host = json.loads(user.podman("container", "inspect", podman.only(ours)))[0]["HostConfig"]
            assert host["ReadonlyRootfs"] and host["NetworkMode"] == "none"
            shut_in.client.stop("shapes")
            gone = podman.only(ours)
            server.until(lambda: gone not in user.containers(label), "the container to be gone", 60)


def bound(user: podman.User, container: str) -> str:
    """What a container sees of this machine's files."""
    return user.podman("container", "inspect", "--format", "{{json .Mounts}}", container, check=False)
