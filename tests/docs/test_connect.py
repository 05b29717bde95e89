"""docs/connect.md does what it says: its listeners, its lines for clients, and those for containers behind a bridge."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from corral.config.paths import Paths
from support.pages import ROOT, Command
from support.server import Server

PAGE = ROOT / "docs" / "connect.md"
MODELS = "models: [{name: demo, source: 'builtin:demo'}]\n"


def block(mark: str) -> str:
    """The text of the one block marked so."""
    (found,) = blocks(mark)
    return found


def blocks(mark: str) -> list[str]:
    pattern = rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$"
    return re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(mark: str) -> list[Command]:
    """What the blocks marked so type, with what it prints."""
    found: list[tuple[list[str], list[str]]] = []
    for line in "".join(blocks(mark)).splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0].append(line[2:])
        elif line.strip():
            found[-1][1].append(line)
    return [Command(PAGE, 0, "\n".join(typed), 0, tuple(prints)) for typed, prints in found]


def run(command: Command, env: dict[str, str], *before: str) -> None:
    done = subprocess.run(
        [*before, "/bin/sh", "-c", command.text], env=env, stdin=subprocess.DEVNULL, text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"$ {command.text}\n{done.stdout}"
    wanted = command.mismatch(done.stdout)
    assert wanted is None, f"$ {command.text}\n{done.stdout}\ndoes not show: {wanted}"


def environment(server: Server, home: Path) -> dict[str, str]:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {key: value for key, value in server.environment.items() if key != "DOCKER_CONFIG"}
    return env | {"PATH": search, "HOME": str(home), "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_familiar_ports(paths: Paths, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line for clients, at the listeners of the page; only their numbers are others, so that all are free."""
    monkeypatch.setenv("HOME", str(short_tmp))
    listen = block("listeners")
    ports = dict(zip(re.findall(r"127\.0\.0\.1:(\d+)", listen), free_ports(4), strict=True))

    def here(text: str) -> str:
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", text)

    with Server(paths, here(listen) + MODELS, listen="") as server:
        env = environment(server, short_tmp)
        typed = commands("connect")
        assert {port for each in typed for port in re.findall(r"127\.0\.0\.1:(\d+)", each.text)} == set(ports)
        for command in typed:
            run(Command(PAGE, 0, here(command.text), 0, command.prints), env)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


# Containers: network namespaces of their own, joined by a bridge, as container engines make them


@dataclass
class Nets:
    """The host's side, which has the bridge, and a container's: processes that hold the namespaces open."""

    host: int
    container: int

    def on_host(self) -> list[str]:
        return ["nsenter", "--target", str(self.host), "--net", "--"]

    def in_container(self) -> list[str]:
        return ["nsenter", "--target", str(self.container), "--net", "--"]


@contextmanager
def nets(bridge: str) -> Iterator[Nets]:
    """A bridge called docker0 with this address, in a network that nothing else is in."""
    held: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(2):
            held.append(subprocess.Popen(["unshare", "--net", "sleep", "600"], stdin=subprocess.DEVNULL))
        made = Nets(held[0].pid, held[1].pid)
        own = Path("/proc/self/ns/net").readlink()
        for each in held:
            while Path(f"/proc/{each.pid}/ns/net").readlink() == own:
                if each.poll() is not None:
                    pytest.skip("this user may not make network namespaces")
        for line in (
            "link set lo up", "link add docker0 type bridge", f"addr add {bridge}/16 dev docker0",
            "link set docker0 up", "link add veth0 type veth peer name eth0", "link set veth0 master docker0 up",
            f"link set eth0 netns {made.container}",
        ):  # fmt: skip
            if subprocess.run([*made.on_host(), "ip", *line.split()], capture_output=True).returncode != 0:
                pytest.skip(f"this kernel or user cannot do: ip {line}")
        address = f"{bridge.rpartition('.')[0]}.2/16"
        for line in ("link set lo up", f"addr add {address} dev eth0", "link set eth0 up"):
            subprocess.run([*made.in_container(), "ip", *line.split()], check=True, capture_output=True)
        yield made
    finally:
        for each in held:
            with suppress(ProcessLookupError):
                each.kill()
            each.wait()


@dataclass
class Behind(Server):
    """A server on the host's side."""

    before: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [*self.before, *super().command()]


NEEDED = ("unshare", "nsenter", "ip", "curl")
ABLE = os.geteuid() == 0 and all(shutil.which(each) for each in NEEDED)


@pytest.mark.skipif(not ABLE, reason=f"needs root, for network namespaces, and {', '.join(NEEDED)}")
def test_containers_behind_a_bridge(paths: Paths, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line for inside a container, and what Compose's provider tells services, from another network."""
    monkeypatch.setenv("HOME", str(short_tmp))
    monkeypatch.delenv("CORRAL_KEY", raising=False)
    with nets("172.17.0.1") as made:
        base = Server(paths)
        base.write(MODELS)
        created = subprocess.run(
            [sys.executable, "-m", "corral", "--json", "keys", "create", "--name", "containers"],
            env=environment(base, short_tmp), capture_output=True, text=True, check=True,
        )  # fmt: skip
        key = json.loads(created.stdout)["secret"]
        config = block("bridge") + "  - unix:~/corral.sock\n" + MODELS
        with Behind(paths, config, listen="", before=tuple(made.on_host())) as server:
            env = environment(server, short_tmp) | {"KEY": key, "CURL_HOME": str(short_tmp)}
            # What --add-host and Podman put into the container's /etc/hosts.
            names = ("host.docker.internal", "host.containers.internal")
            (short_tmp / ".curlrc").write_text("".join(f'resolve = "{name}:8642:172.17.0.1"\n' for name in names))
            for command in commands("container"):
                run(command, env, *made.in_container())
            told = provided(made, env)
            assert told == {"URL": "http://172.17.0.1:8642/v1/", "MODEL": "demo", "API_KEY": key}
            asked = f"curl -s {told['URL']}models -H 'Authorization: Bearer {key}'"
            run(Command(PAGE, 0, asked, 0, ('…"demo"…',)), env, *made.in_container())
            (tuned,) = json.loads(
                subprocess.run(
                    [*made.on_host(), "curl", "-s", "http://127.0.0.1:8642/docker/engines/_configure"],
                    env=env, capture_output=True, text=True, check=True,
                ).stdout
            )  # fmt: skip
            assert tuned["Config"] == {"context-size": 1024, "keep_alive": "10m0s"}


def provided(made: Nets, env: dict[str, str]) -> dict[str, str]:
    """The variables that the page's Compose file gets from its provider, called as Compose does."""
    services = yaml.safe_load(block("provider"))["services"]
    service, provider = next((name, each["provider"]) for name, each in services.items() if "provider" in each)
    flags = [f"--{name}={value}" for name, value in provider["options"].items()]
    done = subprocess.run(
        [*made.on_host(), provider["type"], "compose", "--project-name=app", "up", *flags, service],
        env=env | {"CORRAL_KEY": env["KEY"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(each["message"].split("=", 1) for each in lines if each["type"] == "setenv")
