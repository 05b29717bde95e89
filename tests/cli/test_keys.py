"""`corral keys`, `usage`, `requests` and `tls` as commands, with a server and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from corral.config.paths import Paths
from support.asking import CHAT, ask
from support.forks import Forks
from support.server import Server

Run = Callable[..., str]
BODY = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture
def run(forks: Forks) -> Run:
    """What a command prints, or says went wrong."""

    def run(server: Server, *words: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        done = forks.run(words, server.environment | (env or {}))
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture
def read(run: Run) -> Callable[..., Any]:
    """What a command prints as JSON."""
    return lambda server, *words: json.loads(run(server, "--json", *words))


def test_a_key_without_a_server(paths: Paths, run: Run, read: Callable[..., Any]) -> None:
    """Made, listed, given a new secret and taken back in the file; the server that starts then goes by it."""
    server = Server(paths, "require_keys: true\nmodels: [{name: demo, source: 'builtin:demo'}]")
    assert "There are no keys" in run(server, "keys", "list")
    assert run(server, "usage") == "Nothing was asked\n"
    first = run(server, "keys", "create", "--name", "laptop", "--scope", "infer,pull", "--expires", "30d").strip()
    made = read(
        server, "keys", "create", "--name", "ci", "--models", "ai/*", "--models", "demo", "--tokens-per-day", "9000"
    )
    assert (made["key"]["models"], made["key"]["tokens_per_day"]) == (["ai/*", "demo"], 9000)
    again = run(server, "keys", "rotate", "ci").strip()
    assert [(each["name"], each["state"]) for each in read(server, "keys", "list")] == [
        ("laptop", "active"), ("ci", "active"),
    ]  # fmt: skip
    run(server, "keys", "revoke", "laptop")
    assert "counts no more" in run(server, "keys", "revoke", "laptop")
    with server:
        assert ask(server.url, CHAT, first, BODY).status == ask(server.url, CHAT, made["secret"], BODY).status == 401
        assert ask(server.url, CHAT, again, BODY).status == 200
        listed = run(server, "keys", "list")
        assert "ci" in listed and "laptop" not in listed and "of 9000 tok/day" in listed
        assert again.rpartition("_")[2] not in listed
    rows = read(server, "usage", "--by", "key")
    assert [(row["name"], row["requests"]) for row in rows] == [("ci", 1)]
    assert "ci" in run(server, "usage", "--key", "ci", "--since", "1d")


def test_commands_with_a_key_over_the_network(paths: Paths, run: Run) -> None:
    """CORRAL_KEY is sent where CORRAL_HOST leads; without it, it is said what is missing."""
    config = "require_keys: true\nmodels: [{name: demo, source: 'builtin:demo'}]"
    with Server(paths, config) as server:
        where = {"CORRAL_HOST": server.url}
        secret = run(server, "keys", "create", "--name", "root", "--scope", "admin").strip()
        keyed = {**where, "CORRAL_KEY": secret}
        assert "a key is needed here" in run(server, "ps", code=2, env=where)
        run(server, "ps", env=keyed)
        assert run(server, "keys", "create", "--name", "x", env=keyed).startswith("ck_")
        run(server, "keys", "revoke", "root", env=keyed)
        assert "was revoked" in run(server, "ps", code=2, env=keyed)


def test_usage_and_recording(paths: Paths, run: Run) -> None:
    """By model and day, and the last requests."""
    with Server(paths) as server:
        assert "not recorded" in run(server, "requests")
        run(server, "requests", "--on")
        assert ask(server.url, CHAT, None, BODY).status == 200
        shown = run(server, "requests")
        assert f"POST {CHAT}" in shown and "200" in shown
        assert "MODEL" in (table := run(server, "usage", "--by", "model,day")) and "demo" in table
        assert "(none)" in run(server, "usage", "--by", "key")
        assert "not recorded any more" in run(server, "requests", "--off")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "create", "--name", "x", "--scope", "all"), "there is no scope 'all'"),
        (("keys", "create", "--name", " "), "1 to 200 letters"),
        (("keys", "create", "--name", "x", "--expires", "soon"), "not a duration"),
        (("keys", "revoke", "nobody"), "there is no key 'nobody'"),
        (("usage", "--by", "hour"), "--by is model, key or day"),
        (("requests", "--bodies"), "--bodies goes with --on"),
        (("tls", "show"), "there is no certificate"),
    ],
)
def test_what_cannot_be(paths: Paths, forks: Forks, run: Run, words: tuple[str, ...], said: str) -> None:
    """It is said in a sentence, with what to do, and nothing is made."""
    server = Server(paths)
    done = forks.run(words, server.environment)
    assert done.returncode != 0
    assert said in done.stderr and "hint:" in done.stderr
    assert "There are no keys" in run(server, "keys", "list")


def test_a_certificate(paths: Paths, run: Run, read: Callable[..., Any]) -> None:
    """Made, shown, and renewed by the same authority."""
    server = Server(paths)
    first = read(server, "tls", "init", "--name", "box.example.org")
    assert first["names"][0] == "box.example.org"
    shown = run(server, "tls", "show")
    assert "box.example.org" in shown and first["fingerprint"] in shown
    assert read(server, "tls", "init")["fingerprint"] == first["fingerprint"]
