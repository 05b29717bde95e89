"""The commands of the model store, as a user types them, against a real server and a registry."""

from __future__ import annotations

import json

import pytest

from cli.conftest import Corral
from corral.config.paths import Paths
from corral.descriptors import digest_of
from support import shared_store
from support.faulty_registry import Fault, FaultyRegistry, noise
from support.ptys import terminal
from support.server import Server, until

registry, shared, up = shared_store.registry, shared_store.shared, shared_store.server


@pytest.fixture
def paths(module_paths: Paths) -> Paths:
    """Those of the server that all share."""
    return module_paths


def test_a_models_life(corral: Corral, up: Server, registry: FaultyRegistry) -> None:
    """pull, list, show, tag, history, df, rm: each says what it did, with the full reference."""
    name = f"{registry.host}/me/a:latest"
    pulled = corral("pull", f"{registry.host}/me/a")
    assert (pulled.returncode, pulled.stdout.splitlines()[0]) == (0, name)
    assert "running" in pulled.stderr and "\x1b" not in pulled.stderr
    assert name in corral("list").stdout
    assert json.loads(corral("list", "--stored", "--json").stdout)[0]["name"] == name
    assert "architecture  llama" in corral("show", name).stdout
    assert "llama" in corral("show", name, "--metadata").stdout
    assert corral("tag", name, "me/b").returncode == 0
    assert " * " in corral("history", "me/b").stdout
    inspected = corral("inspect", "--remote", f"{registry.host}/me/a")
    assert json.loads(inspected.stdout)["manifest"]["schemaVersion"] == 2
    usage = json.loads(corral("df", "--json").stdout)
    assert name in corral("df", "-b").stdout
    first = corral("rm", name, "me/b")
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(corral("df", "--json").stdout)["total_bytes"] < usage["total_bytes"]
    assert corral("rm", name).returncode == 4
    assert "all is well" in corral("verify").stdout


def test_what_cannot_be_pulled(corral: Corral, up: Server, registry: FaultyRegistry) -> None:
    """No such model is exit code 4, a bad reference 2, and each has a hint."""
    missing = corral("pull", f"{registry.host}/me/nope")
    assert missing.returncode == 4
    assert "hint:" in missing.stderr
    assert corral("pull", "https://u:p@x.test/m.gguf").returncode == 2
    assert corral("pull").returncode == 2
    assert corral("pull", "--all").returncode == 2
    assert "did not come from" not in corral("pull", "--all", "--update").stderr


def test_ctrl_c_leaves_the_download_running(
    corral: Corral, up: Server, registry: FaultyRegistry, corral_env: dict[str, str]
) -> None:
    """On a terminal there are bars; Ctrl-C ends the command with 130 and says how to go on; the download ends well."""
    big = noise(1 << 20)
    registry.model("me/big", big, tag="v1")
    registry.faults.append(Fault(path=f"/blobs/{digest_of(big)}", stall_after=1000))
    with terminal("pull", f"{registry.host}/me/big:v1", env=corral_env, columns=100) as shell:
        shell.wait_for("running,")
        assert shell.interrupted() == 130
        shell.wait_for("The download goes on")
    [job] = [each for each in json.loads(corral("downloads", "--json").stdout) if "me/big" in each["ref"]]
    assert job["state"] == "running"
    registry.let_go.set()
    until(
        lambda: next(each for each in up.client.downloads() if each.id == job["id"]).state == "done",
        "the download to end",
    )
    again = corral("downloads", "-f", job["id"][:6])
    assert again.stdout.endswith("is done\n")


def test_a_password_comes_from_standard_input(
    corral: Corral, up: Server, paths: Paths, registry: FaultyRegistry
) -> None:
    """login keeps it in a file that only its user may read, and there is no option for it."""
    done = corral("login", registry.host, "-u", "me", "--password-stdin", input="pass word\n")
    assert done.returncode == 0, done.stderr
    assert (paths.config_dir / "auth.json").stat().st_mode & 0o077 == 0
    assert corral("login", registry.host, "-u", "me", "-p", "x").returncode == 2
    assert corral("login", registry.host, "-u", "me", input="").returncode == 2
    assert "logged out" in corral("logout", registry.host).stdout
