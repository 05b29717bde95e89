"""Credentials that docker, podman and helper programs keep, and Corral's own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from corral.errors import ConfigError
from corral.registry.challenges import parse_challenges
from corral.registry.credentials import Basic, IdentityToken, Keyring, RegistryToken


def coded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Home:
    """A home directory with auth files in it, and what the keyring said about them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.env = {"HOME": str(path), "PATH": f"{path / 'bin'}:/usr/bin:/bin"}
        (path / "bin").mkdir(parents=True)

    def write(self, name: str, data: Any) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data if isinstance(data, str) else json.dumps(data))
        return file

    def helper(self, name: str, script: str) -> None:
        program = self.write(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.path / "corral" / "auth.json", self.env, self.said.append)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_docker_file(home: Home) -> None:
    """docker's file is read, Docker Hub's old key included."""
    auths = {"https://index.docker.io/v1/": coded("me", "a:b"), "ghcr.io": coded("you", "c"), "x.example:5000": {}}
    home.write(".docker/config.json", {"auths": auths})
    assert home.keyring.find("docker.io", "ai/x") == Basic("me", "a:b")
    assert home.keyring.find("registry-1.docker.io") == Basic("me", "a:b")
    assert home.keyring.find("ghcr.io") == Basic("you", "c")
    assert home.keyring.find("x.example:5000") is None
    assert home.keyring.find("example.com") is None


def test_kinds_of_tokens(home: Home) -> None:
    """Identity tokens and registry tokens are told apart, and none of them shows in a repr."""
    auths = {
        "a.example": {"identitytoken": "it"},
        "b.example": {"registrytoken": "rt"},
        "c.example": coded("<token>", "x"),
    }
    home.write(".docker/config.json", {"auths": auths})
    found = [home.keyring.find(f"{each}.example") for each in "abc"]
    assert found == [IdentityToken("it"), RegistryToken("rt"), IdentityToken("x")]
    assert "it" not in repr(found[0]).removeprefix("IdentityToken")
    assert "secret" not in repr(Basic("u", "secret"))


def test_order_of_files(home: Home) -> None:
    """Corral's own file comes first, then podman's, then docker's; each may be moved by its variable."""
    home.write(".docker/config.json", {"auths": {"a.example": coded("docker", "x")}})
    assert home.keyring.find("a.example") == Basic("docker", "x")
    moved = home.write("moved/config.json", {"auths": {"a.example": coded("moved", "x")}})
    home.env["DOCKER_CONFIG"] = str(moved.parent)
    assert home.keyring.find("a.example") == Basic("moved", "x")
    home.write("run/containers/auth.json", {"auths": {"a.example": coded("podman", "x")}})
    home.env["XDG_RUNTIME_DIR"] = str(home.path / "run")
    assert home.keyring.find("a.example") == Basic("podman", "x")
    home.env["REGISTRY_AUTH_FILE"] = str(home.write("named.json", {"auths": {"a.example": coded("named", "x")}}))
    assert home.keyring.find("a.example") == Basic("named", "x")
    home.keyring.store("a.example", Basic("own", "x"))
    assert home.keyring.find("a.example") == Basic("own", "x")


def test_repositories(home: Home) -> None:
    """podman's keys for a part of a registry win over the registry's."""
    auths = {"q.example": coded("all", "x"), "q.example/org": coded("org", "x"), "q.example/org/m": coded("m", "x")}
    home.write(".config/containers/auth.json", {"auths": auths})
    users = [home.keyring.find("q.example", name) for name in ("org/m", "org/n", "other/m", "")]
    assert [each.user for each in users if isinstance(each, Basic)] == ["m", "org", "all", "all"]


def test_helpers(home: Home) -> None:
    """A helper program is given the server's name and answers with JSON; a token's user is `<token>`."""
    home.helper(
        "one", """read s; [ "$1" = get ] && printf '{"ServerURL":"%s","Username":"u","Secret":"%s"}' "$s" "$s" """
    )
    home.helper("two", """printf '{"Username":"<token>","Secret":"t"}'""")
    home.write(".docker/config.json", {"credHelpers": {"a.example": "two"}, "credsStore": "one"})
    assert home.keyring.find("a.example") == IdentityToken("t")
    assert home.keyring.find("b.example") == Basic("u", "b.example")
    assert home.keyring.find("docker.io") == Basic("u", "https://index.docker.io/v1/")
    assert home.said == []


@pytest.mark.parametrize(
    ("helper", "script", "said"),
    [
        ("missing", None, "not installed"),
        ("fails", "exit 3", "failed"),
        ("knows-nothing", "echo credentials not found in native keychain; exit 1", ""),
        ("babbles", "echo hello", "no user and secret"),
        ("floods", "yes", "failed"),
        ("lists", "echo '[]'", "no user and secret"),
        ("../../evil", None, "odd name"),
    ],
)
def test_bad_helpers(home: Home, helper: str, script: str | None, said: str) -> None:
    """A helper that is missing or fails is said, and the registry asked without credentials."""
    if script is not None:
        home.helper(helper, script)
    home.write(".docker/config.json", {"credsStore": helper})
    assert home.keyring.find("a.example") is None
    assert [said in each for each in home.said] == ([True] if said else [])


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", '{"auths": []}', '{"auths": {"a.example": 5}}', '{"auths": {"a.example": {"auth": "!"}}}',
     '{"auths": {"a.example": {"auth": "bm9jb2xvbg=="}}}', '{"credHelpers": {"a.example": 5}}', "[" * 100_000],
)  # fmt: skip
def test_damaged_files(home: Home, text: str) -> None:
    """A damaged file has no credentials, and breaks nothing."""
    home.write(".docker/config.json", text)
    assert home.keyring.find("a.example") is None


def test_own_file(home: Home) -> None:
    """Corral's own file is for this user's eyes only, keeps what else is in it, and is written whole or not at all."""
    own = home.write("corral/auth.json", {"auths": {"z.example": coded("z", "x")}, "more": 1})
    own.chmod(0o644)
    home.keyring.store("docker.io", Basic("u", "p"))
    assert own.stat().st_mode & 0o777 == 0o600
    assert json.loads(own.read_text())["more"] == 1
    assert home.keyring.find("index.docker.io") == Basic("u", "p")
    assert home.keyring.remove("docker.io")
    assert not home.keyring.remove("docker.io")
    assert home.keyring.find("z.example") == Basic("z", "x")
    assert sorted(each.name for each in own.parent.iterdir()) == ["auth.json", "auth.json.lock"]


def test_nowhere_to_write(home: Home) -> None:
    """Where nothing can be kept, that is a clear error."""
    home.write("corral", "a file")
    with pytest.raises(ConfigError):
        home.keyring.store("a.example", Basic("u", "p"))
    with pytest.raises(ConfigError):
        Keyring(None, home.env).store("a.example", Basic("u", "p"))


def test_challenges() -> None:
    """WWW-Authenticate comes apart: several schemes, quotes, commas within them."""
    found = parse_challenges(
        [
            'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="repository:a/b:pull,push", Basic realm=x',
            "Negotiate",
        ]
    )
    assert [each.scheme for each in found] == ["bearer", "basic", "negotiate"]
    assert found[0].parameters == {
        "realm": "https://a/t?x=1,2",
        "service": 's "q"',
        "scope": "repository:a/b:pull,push",
    }
    assert found[1].parameters == {"realm": "x"}
    assert parse_challenges(['Bearer realm="unclosed', "", "=,=", "\x00"])[:1] != []
