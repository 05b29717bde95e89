"""Models whose server runs already: it is connected to, asked, lost, found again, and never ended."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from corral.errors import CorralError
from support.asking import CHAT, ask
from support.server import Server, until
from support.standing import Standing, free_port

BODY = {
    "model": "mine", "stream": True, "temperature": 0, "max_tokens": 200, "ignore_eos": True,
    "messages": [{"role": "user", "content": "What is Corral?"}],
}  # fmt: skip
SHORT = {**BODY, "stream": False, "max_tokens": 8}


def config(standing: Standing | str, more: str = "", rest: str = "") -> str:
    endpoint = standing if isinstance(standing, str) else standing.endpoint
    return f"""
        {rest}
        models:
          - {{name: mine, runner: server, endpoint: "{endpoint}", parallel: 2, context: 1024{more}}}
          - {{name: demo, source: 'builtin:demo', executable: embedded}}
    """


def text(answer: bytes) -> str:
    events = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def streamed(server: Server, body: dict[str, Any], standing: Standing | None = None) -> bytes:
    """The whole answer; once ten events have come, `standing` is killed and started again."""
    asking = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        asking.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
        answer, got = asking.getresponse(), b""
        while standing is not None and got.count(b"\n\n") < 10:
            got += answer.read1()
        if standing is not None:
            standing.kill()
            standing.start()
        return got + answer.read()
    finally:
        asking.close()


def state(server: Server, model: str = "mine") -> str:
    return next((each.state for each in server.client.units() if each.model == model), "stopped")


def test_it_is_connected_to_and_let_go(paths: Paths, tmp_path: Path) -> None:
    """A streamed chat goes to it; what is shown of it is what it says; a stop lets it live, and so does Corral's end.
    It takes none of the places of others."""
    with (
        Standing(tmp_path, "--ctx-size", "1024") as standing,
        Server(paths, config(standing, rest="max_active: 1")) as server,
    ):
        planned = server.client.plan("mine")
        assert (planned.argv, planned.command, planned.footprint) == ([], [], {})
        assert planned.endpoint == standing.endpoint
        answer = streamed(server, BODY)
        assert answer.endswith(b"data: [DONE]\n\n") and len(text(answer)) > 100
        (unit,) = server.client.units()
        assert (unit.state, unit.pid, unit.runner, unit.footprint_bytes) == ("ready", None, "server", None)
        assert unit.context == 1024 and unit.idle_stop_in_s is None
        health = server.client.health("mine")
        assert health.ok and [each.name for each in health.checks] == ["process", "health", "canary"]
        assert any("its log is where it was started" in line for line in server.client.logs("mine", 10))
        assert ask(server.url, CHAT, body={**SHORT, "model": "demo"}).status == 200
        assert (state(server), state(server, "demo")) == ("ready", "ready"), "nobody had to go"
        server.client.stop("mine")
        assert state(server) == "stopped" and standing.lives
        assert standing.socket is not None and standing.socket.exists()
        assert ask(server.url, CHAT, body=SHORT).status == 200
        server.end()
        assert standing.lives and standing.socket.exists()


def test_it_is_found_again_after_a_crash(paths: Paths, tmp_path: Path) -> None:
    """A stream goes on when its server is back; until then, who asks waits."""
    with Standing(tmp_path, port=free_port()) as standing, Server(paths, config(standing)) as server:
        whole = text(streamed(server, BODY))
        cut = streamed(server, BODY, standing)
        before, mark, _ = cut.partition(b": corral.resumed unit=mine.")
        assert mark and cut.endswith(b"data: [DONE]\n\n"), cut
        assert text(before) and whole.startswith(text(before))
        standing.kill()
        until(lambda: state(server) in ("loading", "backoff"), "its end to be seen")
        gone = [event.text for event in server.client.events(model="mine") if event.kind == "unit.state"]
        assert any(f"nobody listens at 127.0.0.1:{standing.endpoint[17:]} any more" in each for each in gone), gone
        standing.start()
        assert ask(server.url, CHAT, body=SHORT).status == 200


def test_one_that_hangs_is_let_go(paths: Paths, tmp_path: Path) -> None:
    """Nothing is killed: it is let go, and connected to again when it answers."""
    quick = "timeouts: {hang: 2s, start: 20s}"
    with Standing(tmp_path) as standing, Server(paths, config(standing, rest=quick)) as server:
        assert ask(server.url, CHAT, body=SHORT).status == 200
        standing.signal(signal.SIGSTOP)
        found = until(
            lambda: [each for each in server.client.events(model="mine") if each.kind == "unit.hung"],
            "a hang to be seen",
        )
        assert "is let go" in found[0].text and standing.lives
        standing.signal(signal.SIGCONT)
        assert ask(server.url, CHAT, body=SHORT).status == 200
        assert standing.lives


@pytest.mark.long
def test_a_wrong_address_is_named(paths: Paths) -> None:
    """One clear error, after some seconds and not after the whole time for a start."""
    port = free_port()
    with Server(paths, config(f"http://127.0.0.1:{port}")) as server:
        reply = ask(server.url, CHAT, body=SHORT)
        error = reply.json()["error"]
        assert reply.status == 502 and f"nobody listens at 127.0.0.1:{port}" in error["message"], error
        assert "endpoint" in error["hint"]


def test_its_own_name_for_the_model_is_used(paths: Paths, tmp_path: Path) -> None:
    """The only model of the server is found out; another is refused with those that there are; a restarted Corral
    connects again."""
    with Standing(tmp_path, fake=True) as standing, Server(paths, config(standing)) as server:
        name = ask(server.url, CHAT, body=SHORT).json()["fake"]["model"]
        assert name not in ("mine", None)
        large = {**SHORT, "padding": "x" * (300 << 10)}
        assert ask(server.url, CHAT, body=large).json()["fake"]["model"] == name
        server.write(config(standing, ", served_model: another"))
        server.client.reload()
        server.client.stop("mine")
        error = ask(server.url, CHAT, body=SHORT).json()["error"]
        assert "has no model 'another'" in error["message"] and name in error["hint"], error
        server.write(config(standing, f", served_model: {name}"))
        server.kill()
        server.start()
        assert ask(server.url, CHAT, body=SHORT).json()["fake"]["model"] == name
        assert standing.lives


def test_its_key_goes_with_requests_and_is_never_shown(paths: Paths, tmp_path: Path) -> None:
    """From a file or a variable; without it, the error says what is missing."""
    secret, file = "sesame-4711", tmp_path / "key"
    file.write_text(f"{secret}\n")
    standing = Standing(tmp_path, "--api-key", secret)
    with standing, Server(paths, config(standing), env={"THEIR_KEY": secret}) as server:
        error = ask(server.url, CHAT, body=SHORT).json()["error"]
        assert "wants a key (401)" in error["message"] and "api_key_file" in error["hint"], error
        for more in (f", api_key_file: {file}", ", api_key_env: THEIR_KEY"):
            server.write(config(standing, more))
            server.client.reload()
            server.client.stop("mine")
            assert ask(server.url, CHAT, "a-clients-own", body=SHORT).status == 200
            assert server.client.health("mine").ok
            shown = [*map(repr, [*server.client.units(), *server.client.events(), server.client.plan("mine")])]
            assert secret not in "".join([*shown, *server.client.logs("mine", 50), server.said()])
        server.write(config(standing, ", api_key_env: THERE_IS_NONE"))
        server.client.reload()
        server.client.stop("mine")
        with pytest.raises(CorralError, match="the variable THERE_IS_NONE is not set"):
            server.client.start("mine")
