"""Debian's `docker-registry`, run for a test: open, with passwords, or with bearer tokens of a token server here."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.raw_http import Asked, RawServer, answer, json_answer, serving

USER, PASSWORD = "corral", "secret"
_HTPASSWD = "corral:$2y$05$kPTbCVP9.9tBIewWzTEGL.c9EjK83xs6i2qqWNppFymk2TQNYMqsq\n"  # the two above, by bcrypt
_LISTENING = re.compile(rb"listening on (?:\[::\]|127\.0\.0\.1):(\d+)")


def needs(*programs: str) -> None:
    """Skips the test when one of `programs` is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@contextmanager
def docker_registry(root: Path, auth: dict[str, Any] | None = None) -> Iterator[str]:
    """The `host:port` of a registry that keeps its content under `root`."""
    needs("docker-registry")
    root.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "test"},
        "log": {"level": "info", "accesslog": {"disabled": True}},
    }
    if auth:
        config["auth"] = auth
    (root / "config.yml").write_text(json.dumps(config))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(root / "config.yml")], stdout=log, stderr=log)
    try:
        yield f"localhost:{_port(root / 'log', process)}"
    finally:
        process.kill()
        process.wait()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if found := _LISTENING.search(log.read_bytes()):
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")


def with_passwords(root: Path) -> dict[str, Any]:
    """The `auth` of a registry that knows USER and PASSWORD."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "htpasswd").write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}


@dataclass
class TokenServer:
    """Gives tokens to USER, and to nobody for reading only. `life_s` is how long those from now on live."""

    key: Path
    certificate: Path
    server: RawServer | None = None
    life_s: int = 60
    given: list[list[dict[str, Any]]] = field(default_factory=list)  # the access of each token
    refuse: Callable[[Asked], bool] = lambda asked: False

    @property
    def authority(self) -> str:
        assert self.server is not None
        return self.server.authority

    @property
    def auth(self) -> dict[str, Any]:
        """The `auth` of a registry that believes this server."""
        return {
            "token": {
                "realm": f"http://{self.authority}/token", "service": "test-registry", "issuer": "test-issuer",
                "rootcertbundle": str(self.certificate),
            }
        }  # fmt: skip

    def answer(self, asked: Asked) -> bytes:
        query = parse_qs(urlsplit(asked.path).query)
        known = (
            asked.headers.get("authorization") == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        )
        if self.refuse(asked) or ("authorization" in asked.headers and not known):
            return json_answer({"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}, 401)
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = [each for each in actions.split(",") if known or each == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        self.given.append(access)
        return json_answer({"token": self._token(access), "expires_in": self.life_s})

    def _token(self, access: list[dict[str, Any]]) -> str:
        der = base64.b64encode(_pem_body(self.certificate)).decode()
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {
            "iss": "test-issuer", "sub": USER, "aud": "test-registry", "exp": now + self.life_s, "nbf": now - 60,
            "iat": now, "jti": str(len(self.given)), "access": access,
        }  # fmt: skip
        signed = b".".join(_urlsafe(json.dumps(part).encode()) for part in (head, claims))
        made = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key], input=signed, capture_output=True, check=True
        )
        return (signed + b"." + _urlsafe(made.stdout)).decode()


@contextmanager
def token_server(root: Path) -> Iterator[TokenServer]:
    """A running token server with a key of its own."""
    needs("openssl")
    root.mkdir(parents=True, exist_ok=True)
    key, certificate = root / "token.key", root / "token.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test-issuer",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    made = TokenServer(key, certificate)
    with serving(lambda asked: made.answer(asked) if asked.path.startswith("/token") else answer(404)) as server:
        made.server = server
        yield made


def _pem_body(path: Path) -> bytes:
    lines = path.read_text().splitlines()
    return base64.b64decode("".join(line for line in lines if not line.startswith("-")))


def _urlsafe(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
