"""A real vLLM in a container: its image asked, a model served, bounded, put to sleep, stopped."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.config.paths import Paths
from support import podman
from support.containers import cleaned, inspected, label, unit
from support.podman import Server, User
from support.server import until
from support.vllm import START, tiny_llama

pytestmark = [pytest.mark.podman, pytest.mark.vllm, pytest.mark.timeout(3000)]

WITHIN_S = 1300.0
CONFIG = """
timeouts: {{start: {start}, queue: {start}, stop: 60s}}
models:
  - name: tiny
    source: {folder}
    engine: vllm
    runner: podman
    image: {image}
    gpu_layers: 0
    context: 1024
    max_num_seqs: 8
    sleep: 1
    args: [--enforce-eager]
"""


@pytest.fixture
def user() -> User:
    found = podman.user()
    if "vllm" not in found.images:
        pytest.skip("no image of vLLM here: `make vllm`, and then `make podman VLLM=1`")
    return found


@pytest.fixture
def places(user: User) -> Iterator[Paths]:
    with podman.directories(user) as paths:
        shutil.copytree(tiny_llama(), paths.data_dir / "tiny")
        user.owns(paths.data_dir)
        yield paths


def post(server: Server, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=WITHIN_S)
    try:
        connection.request("POST", path, json.dumps({"model": "tiny", **body}), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_vllm_moves_into_a_container_by_one_word(user: User, places: Paths) -> None:
    """It streams a chat, shut in like any engine but for memory of its own to share; sleeps, wakes, and is gone."""
    config = CONFIG.format(start=START, folder=places.data_dir / "tiny", image=user.images["vllm"])
    chat = {"messages": [{"role": "user", "content": "the dog"}], "max_tokens": 8, "temperature": 0}
    with Server(places, config, who=user) as server, cleaned(user, places):
        status, said = post(server, "/v1/chat/completions", {**chat, "stream": True})
        assert status == 200, said
        events = [json.loads(line[6:]) for line in said.split(b"\n") if line.startswith(b"data: {")]
        assert sum(bool(each["choices"]) for each in events) >= 2 and said.rstrip().endswith(b"data: [DONE]")
        row = unit(server, "tiny")
        assert (row.engine, row.runner, row.state, row.context) == ("vllm", "podman", "ready", 1024)
        assert (row.memory_bytes or 0) > 300 << 20, "all of its processes are counted"

        host = inspected(user, places)["HostConfig"]
        assert (
            host["ReadonlyRootfs"]
            and host["NetworkMode"] == "none"
            and host["IpcMode"]
            in (
                "private",
                "shareable",  # as Podman calls it: others could only join if they were told to
            )
        )
        assert host["ShmSize"] == 1 << 30
        name = podman.only(user.containers(label(places)))
        able = user.podman("exec", name, "grep", "CapEff", "/proc/1/status")
        assert able.split()[1].strip("0") == ""
        assert "Read-only" in user.run("podman", "exec", name, "touch", "/opt/vllm/x", check=False).stderr
        assert user.podman("exec", name, "python", "-I", "/opt/corral/healthy.py") == ""

        before = json.loads(post(server, "/v1/chat/completions", chat)[1])["choices"]
        assert post(server, "/upstream/tiny/sleep?level=1", {})[0] == 200
        until(lambda: unit(server, "tiny").state == "sleeping", "it to be seen asleep")
        assert json.loads(post(server, "/v1/chat/completions", chat)[1])["choices"] == before
        server.client.stop("tiny")
        until(lambda: not user.containers(label(places)), "the container to be gone", 90)
