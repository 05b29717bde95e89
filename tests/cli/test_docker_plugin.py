"""`docker model` over Corral: installed, called as Docker calls it, and by Docker's own command line where it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.cli.docker_plugin import asked
from corral.config.paths import Paths
from support.faulty_registry import FaultyRegistry, serving
from support.forks import Forks
from support.ggufs import write_chain
from support.server import Server

WORDS = ["to", "be", "or", "not"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def docker_env(corral_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Docker's directory is one of the test's own."""
    return {**corral_env, "DOCKER_CONFIG": str(tmp_path / "docker")}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "cli-plugins" / "docker-model"


@pytest.fixture
def call(docker_env: dict[str, str], corral: Run, forks: Forks, plugin: Path) -> Run:
    """Runs a program to its end; the plugin as a file for the first call of each of its commands, forked after that."""

    def run(*argv: str | Path, **env: str) -> Any:
        words = [str(each) for each in argv[1:]]
        if argv[0] == plugin and not forks.first("docker-model", *words[:2]):
            return forks.run(words, docker_env | env, module="corral.cli.docker_plugin", fresh=False)
        return subprocess.run(
            [str(each) for each in argv], env=docker_env | env, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    assert corral("install", "docker-plugin", env=docker_env).returncode == 0
    return run


@pytest.fixture(scope="module")
def shared(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths) as started:
        yield started


@pytest.fixture
def up(shared: Server, docker_env: dict[str, str]) -> Server:
    """One for the tests that need nothing of their own, which commands find."""
    shared.empty()
    docker_env |= {name: value for name, value in shared.environment.items() if name.startswith("CORRAL_")}
    return shared


@pytest.fixture
def registry(short_tmp: Path) -> Iterator[FaultyRegistry]:
    with serving() as found:
        found.model("me/a", write_chain(short_tmp / "a.gguf", WORDS).read_bytes())
        yield found


def test_installing_and_uninstalling(corral: Run, docker_env: dict[str, str], plugin: Path) -> None:
    """A plugin of somebody else is kept; with --force it is put aside, and comes back at the end."""
    done = corral("install", "docker-plugin", env=docker_env)
    assert (done.returncode, done.stdout) == (0, f"{plugin} is installed\n")
    assert os.access(plugin, os.X_OK)
    assert corral("install", "docker-plugin", env=docker_env).returncode == 0  # twice does no harm
    assert corral("uninstall", "docker-plugin", env=docker_env).stdout == f"{plugin} is removed\n"
    assert not plugin.exists()
    assert corral("uninstall", "docker-plugin", env=docker_env).stdout == f"{plugin} is not there\n"
    plugin.write_text("#!/bin/sh\necho theirs\n")
    refused = corral("install", "docker-plugin", env=docker_env)
    assert refused.returncode == 5 and "is not Corral's" in refused.stderr and "--force" in refused.stderr
    assert corral("uninstall", "docker-plugin", env=docker_env).returncode == 5
    assert json.loads(corral("install", "docker-plugin", "--force", "--json", env=docker_env).stdout)["replaced"]
    assert "echo theirs" not in plugin.read_text()
    assert "the one of before" in corral("uninstall", "docker-plugin", env=docker_env).stdout
    assert "echo theirs" in plugin.read_text()


def test_what_docker_asks_first(call: Run, plugin: Path) -> None:
    """Its metadata, on one line, with a version that Compose passes flags on to."""
    found = json.loads(call(plugin, "docker-cli-plugin-metadata").stdout)
    assert (found["SchemaVersion"], found["Vendor"]) == ("0.1.0", "Corral")
    assert tuple(map(int, found["Version"].removeprefix("v").split("."))) >= (1, 0, 6)
    assert "corral" in found["ShortDescription"].lower()


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["model", "list"], ["list"]),
        (["--context", "x", "model", "ps"], ["ps"]),
        (["--context=x", "-D", "model", "ps"], ["ps"]),
        (["model", "rm", "model"], ["rm", "model"]),
        (["model"], []),
        (["--help"], ["--help"]),
        (["list"], ["list"]),
    ],
)
def test_how_docker_calls_it(args: list[str], left: list[str]) -> None:
    """Its own options stand before the plugin's name; by hand the name may be left out."""
    assert asked(args) == left


def test_models_by_docker_model(call: Run, plugin: Path, paths: Paths, registry: FaultyRegistry) -> None:
    """Fetched, listed, asked, named, loaded, unloaded, removed: each as Docker says it."""
    name = f"{registry.host}/me/a"

    def model(*args: str) -> subprocess.CompletedProcess[str]:
        done = call(plugin, "model", *args)
        assert done.returncode == 0, done.stderr
        return done

    with Server(paths):
        assert f"{name}:latest" in model("pull", name).stdout
        rows = model("list").stdout.splitlines()
        assert rows[0].split()[:2] == ["MODEL", "NAME"]
        assert [row.split()[0] for row in rows[1:]] == [name, "demo"]
        listed = json.loads(model("ls", "--json").stdout)
        assert [f"{name}:latest"] == next(each["tags"] for each in listed if "demo" not in each["tags"])
        digest = json.loads(model("inspect", name).stdout)["id"]
        assert digest in model("list", "-q").stdout.splitlines()
        assert model("run", name, "go").stdout.split() == WORDS
        assert model("run", "-d", "demo").stdout == ""
        running = model("ps").stdout
        assert name in running and "completion" in running and "llama.cpp" in running
        assert model("unload", "demo").stdout == "Unloaded 1 model(s).\n"
        assert model("unload", "demo").stdout == "No such model(s) running.\n"
        model("configure", "--context-size", "256", name, "--", "--temp", "0")
        (kept,) = json.loads(model("configure", "show").stdout)
        assert kept["Config"] == {"context-size": 256, "runtime-flags": ["--temp", "0"]}
        model("tag", name, "me/b:v1")
        assert model("rm", "me/b:v1").stdout == "Untagged: docker.io/me/b:v1\n"
        assert "Models" in model("df").stdout
        assert "loading → ready" in model("logs", "--no-engines").stdout
        assert "Docker Model Runner is running" in model("status").stdout
        model("run", "-d", name)
        assert model("unload", "--all").stdout == "Unloaded 1 model(s).\n"
        assert model("rm", name).stdout == f"Untagged: {name}:latest\nDeleted: {digest}\n"
        assert "1.2.6" in model("version").stdout
        assert json.loads(model("list", "--openai").stdout)["data"][0]["id"] == "demo"


def test_errors_of_docker_model(call: Run, plugin: Path, up: Server) -> None:
    """One sentence, a hint and an exit code, as of `corral` itself."""
    missing = call(plugin, "model", "inspect", "nobody")
    assert missing.returncode == 4
    assert missing.stderr.startswith("error: model not found: nobody (fetch it with: docker model pull nobody")
    assert call(plugin, "model", "bench", "demo").returncode == 2
    assert call(plugin, "model", "unload").returncode == 2
    refused = call(plugin, "model", "configure", "demo", "--", "--log-file", "x")
    assert refused.returncode != 0 and "may not be set from outside" in refused.stderr
    unknown = call(plugin, "model", "dance")
    assert unknown.returncode == 2 and "docker model --help" in unknown.stderr


def test_what_compose_runs_for_a_models_element(call: Run, plugin: Path, up: Server) -> None:
    """`ls --json` for the tags, `pull`, `configure`, and `status --json` for the endpoint that it gives to services."""
    assert ["demo"] in [each["tags"] for each in json.loads(call(plugin, "model", "ls", "--json").stdout)]
    done = call(plugin, "model", "configure", "--context-size", "512", "demo", "--", "--temp", "0")
    assert done.returncode == 0, done.stderr
    status = call(plugin, "model", "status", "--json")
    found = json.loads(status.stdout)
    assert found["running"] and found["endpoint"].endswith("/engines/v1/")
    assert "loopback only" in status.stderr  # and so no container can reach it


@pytest.mark.skipif(shutil.which("docker") is None, reason="Docker's command line is not installed")
def test_dockers_own_command_line(call: Run, up: Server) -> None:
    """It finds the plugin, and `docker model` is Corral."""
    done = call("docker", "model", "list")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    assert call("docker", "--log-level", "error", "model", "run", "demo", "hello").stdout.strip()
    assert "Models that Corral" in call("docker", "--help").stdout
    assert call("docker", "model", "inspect", "nobody").returncode == 4
