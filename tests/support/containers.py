"""Engines of a test server in the containers of the test user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.api import UnitInfo
from corral.client import Finished
from corral.config.paths import Paths
from corral.runners.containers.host import podman_host
from corral.runners.containers.naming import STATE, state_id
from support import podman
from support.ggufs import write_chain
from support.podman import User
from support.server import Server, until

WORDS = ["safe", "and", "sound"]


def model_file(user: User, paths: Paths) -> Path:
    """A model that knows one sentence, which the user may read."""
    path = paths.data_dir / "m.gguf"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        write_chain(path, WORDS)
    user.owns(paths.data_dir)
    return path


def config(user: User, paths: Paths, *more: str, runner: str = "podman", name: str = "m") -> str:
    lines = [
        "models:",
        f"  - name: {name}",
        f"    source: {model_file(user, paths)}",
        f"    runner: {runner}",
        f"    image: {user.images['llama.cpp']}",
        *(f"    {line}" for line in more),
    ]
    return "\n".join(lines) + "\n"


def say(server: Server, model: str = "m") -> str:
    """What the model streams."""
    asked = [{"role": "user", "content": "go"}]
    pieces = server.client.chat_stream(model, asked, temperature=0, max_tokens=9)
    return "".join(each.text for each in pieces if not isinstance(each, Finished))


def unit(server: Server, model: str = "m") -> UnitInfo:
    """The unit that runs."""
    [row] = [row for row in server.client.units() if row.model == model and row.pid is not None]
    return row


def log_of(server: Server, model: str = "m") -> str:
    return "\n".join(server.client.logs(model, 200))


def label(paths: Paths) -> str:
    """The filter that finds one server's containers."""
    return f"label={STATE}={state_id(os.fsencode(paths.state_dir))}"


def inspected(user: User, paths: Paths) -> dict[str, Any]:
    """The one container of that server."""
    found = json.loads(user.podman("container", "inspect", podman.only(user.containers(label(paths)))))
    return dict(found[0])


def engine_inside(row: UnitInfo) -> int:
    """The engine's own process, as this machine counts: below the container's first one, which only minds it."""
    from corral.runners import memory

    assert row.pid is not None
    return memory.family(row.pid)[-1]


@contextmanager
def cleaned(user: User, paths: Paths) -> Iterator[None]:
    """Leaves none of that server's containers behind, whatever happens."""
    try:
        yield
    finally:
        user.remove(label(paths))


@contextmanager
def service(user: User, paths: Paths) -> Iterator[Path]:
    """Podman's API on a socket of its own."""
    socket = paths.runtime_dir / "podman.sock"
    process = subprocess.Popen(
        ["podman", "system", "service", "--time", "0", f"unix://{socket}"],
        env=dict(user.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user.becomes,
    )
    try:
        until(socket.exists, "Podman's API")
        yield socket
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def for_root(user: User) -> Iterator[dict[str, str]]:
    """The environment in which root's Podman works here, with the engine's image in root's own storage."""
    env = {"CONTAINERS_CONF": str(user.home / ".config" / "containers" / "containers.conf")}
    whole, reference = {**os.environ, **env}, user.images["llama.cpp"]
    told = subprocess.run(["podman", "info", "--format", "json"], env=whole, capture_output=True, check=True).stdout
    if not podman_host(json.loads(told), subuids=False, init=True, owner="0:0").enforces >= {"memory"}:
        pytest.skip("the kernel keeps no limits for root's containers here")
    if subprocess.run(["podman", "image", "exists", reference], env=whole, check=False).returncode:
        saved = subprocess.Popen(
            ["podman", "save", reference], env=dict(user.env), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            **user.becomes,
        )  # fmt: skip
        subprocess.run(["podman", "load"], env=whole, stdin=saved.stdout, capture_output=True, check=True)
        assert saved.stdout is not None
        saved.stdout.close()
        assert saved.wait() == 0
    yield env
