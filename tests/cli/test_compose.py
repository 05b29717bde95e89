"""A provider of Docker Compose: called as Compose calls it, read as Compose reads it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import openai
import pytest

from corral.cli.reaching import bridge_addresses, endpoint
from corral.config.paths import Paths
from support import shared_store
from support.faulty_registry import FaultyRegistry
from support.server import Server
from support.shared_store import WORDS

registry, shared, server = shared_store.registry, shared_store.shared, shared_store.server
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def at_server(corral: Run, server: Server) -> Run:
    """Runs `corral …` where the server is that all share."""
    return partial(corral, env={name: each for name, each in server.environment.items() if name.startswith("CORRAL_")})


class Compose:
    """What Compose does with a provider: its metadata, its options as flags, its lines, its variables.

    Source: docker/compose v2.40, `pkg/compose/plugins.go`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        found = run("compose", "metadata")
        assert found.returncode == 0, found.stderr
        self.metadata = json.loads(found.stdout)

    def __call__(self, verb: str, service: str, options: dict[str, list[str]]) -> tuple[int, list[dict[str, str]]]:
        known = {each["name"]: each for each in self.metadata[verb]["parameters"]}
        assert all(name in options for name, each in known.items() if each["required"])
        flags = [f"--{name}={value}" for name, values in options.items() if name in known for value in values]
        done = self._run("compose", "--project-name=app", verb, *flags, service)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def variables(self, service: str, lines: list[dict[str, str]]) -> dict[str, str]:
        """As the services that depend on it get them."""
        pairs = [each["message"].split("=", 1) for each in lines if each["type"] == "setenv"]
        return {f"{service.upper()}_{name}": value for name, value in pairs}


def test_up_gives_a_service_its_model(at_server: Run, server: Server, registry: FaultyRegistry) -> None:
    """It is fetched and set up; the variables lead a client of another service to it. Twice does no harm."""
    name = f"{registry.host}/me/a"
    compose = Compose(at_server)
    options = {
        "model": [name], "context-size": ["256"], "runtime-flags": ["--temp 0"], "keep-alive": ["10m"],
        "endpoint": [server.url], "nobody-knows": ["this"],
    }  # fmt: skip
    code, lines = compose("up", "llm", options)
    assert code == 0, lines
    assert {each["type"] for each in lines} <= {"info", "setenv", "debug"}
    assert any("pulling" in each["message"] for each in lines if each["type"] == "info")
    found = compose.variables("llm", lines)
    assert found == {"LLM_URL": f"{server.url}/v1/", "LLM_MODEL": f"{name}:latest"}
    with openai.OpenAI(base_url=found["LLM_URL"], api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=found["LLM_MODEL"], messages=[{"role": "user", "content": "go"}])
    assert (answer.choices[0].message.content or "").split() == WORDS
    (unit,) = server.client.units()
    assert unit.context == 256
    code, again = compose("up", "llm", options)
    assert (code, compose.variables("llm", again)) == (0, found)
    for verb in ("stop", "down"):
        code, lines = compose(verb, "llm", {"model": [name]})
        assert code == 0 and all(each["type"] == "info" for each in lines)
    assert [each.state for each in server.client.units()] in ([], ["stopped"])


def test_a_preloaded_model_of_the_configuration(at_server: Run, server: Server) -> None:
    """Nothing is fetched; it is loaded at once."""
    options = {"model": ["demo"], "preload": ["true"], "endpoint": ["http://host.docker.internal:1"]}
    code, lines = Compose(at_server)("up", "llm", options)
    assert code == 0, lines
    assert {"type": "setenv", "message": "URL=http://host.docker.internal:1/v1/"} in lines
    assert [each.state for each in server.client.units()] == ["ready"]


def test_errors_are_lines_too(corral: Run, at_server: Run, server: Server, registry: FaultyRegistry) -> None:
    """What Compose shows its user; the exit code says that it failed."""
    compose = Compose(at_server)
    code, lines = compose("up", "llm", {"model": [f"{registry.host}/me/nope"], "endpoint": [server.url]})
    assert code == 1 and lines[-1]["type"] == "error" and "me/nope" in lines[-1]["message"]
    code, lines = compose("up", "llm", {"model": ["demo"]})
    assert code == 1
    (error,) = lines
    assert "no container can reach the server" in error["message"] and "172.17.0.1" in error["message"]
    bad = {"model": ["demo"], "endpoint": [server.url], "runtime-flags": ["--log-file x"]}
    code, lines = compose("up", "llm", bad)
    assert code == 1 and "may not be set from outside" in lines[-1]["message"]
    code, lines = Compose(corral)("down", "llm", {"model": ["demo"]})
    assert (code, lines) == (0, [{"type": "info", "message": "no server runs, so nothing is loaded"}])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("up", "llm"), "'--model'"),
        (("up", "--model=demo"), "'SERVICE'"),
        (("up", "--model=demo", "--context-size=much", "llm"), "'much' is not a valid integer"),
        (("up", "--model=demo", "--nothing=1", "llm"), "--nothing"),
        (("--nothing", "up"), "--nothing"),
        (("sideways", "llm"), "sideways"),
    ],
)
def test_a_wrong_call_is_a_line_too(corral: Run, args: tuple[str, ...], says: str) -> None:
    """Compose looks at standard output alone, and takes anything else there for a broken provider."""
    done = corral("compose", *args)
    (line,) = [json.loads(each) for each in done.stdout.splitlines()]
    assert (done.returncode, line["type"]) == (2, "error")
    assert says in line["message"] and "--help" in line["message"]
    assert done.stderr == ""


def test_a_service_beyond_loopback(corral: Run, paths: Paths) -> None:
    """Where the server listens for others too, that address is given without being asked for."""
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    config = f"""
        listen: [127.0.0.1:0, {{address: '{address}:{port}', insecure: true}}]
        models: [{{name: demo, source: 'builtin:demo'}}]
    """
    with Server(paths, config, listen=""):
        code, lines = Compose(corral)("up", "llm", {"model": ["demo"]})
        assert code == 0, lines
        assert {"type": "setenv", "message": f"URL=http://{address}:{port}/v1/"} in lines


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("listen", "bridges", "platform", "found"),
    [
        (["127.0.0.1:8642", "unix:/s"], ["172.17.0.1"], "linux", None),
        (["127.0.0.1:8642", "172.17.0.1:8642"], ["172.17.0.1"], "linux", "172.17.0.1:8642"),
        (["192.168.1.5:8643", "172.17.0.1:12434"], ["172.17.0.1"], "linux", "172.17.0.1:12434"),
        (["0.0.0.0:8642"], ["10.88.0.1"], "linux", "10.88.0.1:8642"),
        (["[2001:db8::1]:8642"], [], "linux", "[2001:db8::1]:8642"),
        (["127.0.0.1:8642"], [], "darwin", "host.docker.internal:8642"),
        (["unix:/s"], [], "darwin", None),
        (["unix:/s"], ["172.17.0.1"], "linux", None),
    ],
)
def test_which_address_a_container_gets(listen: list[str], bridges: list[str], platform: str, found: Any) -> None:
    """One of a bridge before others; the host's loopback only where containers run in a machine of their own."""
    assert endpoint(listen, bridges, platform) == found


def test_bridges_are_asked_for() -> None:
    """Where there are none, there are none."""
    assert all(socket.inet_aton(each) for each in bridge_addresses())
