"""A server that takes the place of another: `corral serve --handover`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.connection import Address, request
from support.ggufs import write_chain
from support.server import Server, until

WORDS = ["to", "be", "or", "not"]
LONG = [f"w{i}" for i in range(150)]


@pytest.fixture
def config(short_tmp: Path) -> str:
    write_chain(short_tmp / "a.gguf", WORDS)
    write_chain(short_tmp / "long.gguf", LONG)
    return f"""
        models:
          - {{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 256, parallel: 2}}
          - {{name: long, source: {short_tmp}/long.gguf, executable: embedded, context: 1024}}
    """


def pids(server: Server) -> dict[str, int | None]:
    return {unit.model: unit.pid for unit in server.client.units() if unit.state == "ready"}


def body(model: str, most: int = 200, **more: object) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": most}
    return json.dumps({**asked, **more}).encode()


def say(connection: http.client.HTTPConnection, model: str, most: int = 200) -> str:
    connection.request("POST", "/v1/chat/completions", body(model, most), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    content: str = json.loads(text)["choices"][0]["message"]["content"]
    return content


class Asking(threading.Thread):
    """Asks one model again and again, over one connection or a new one each time, until it is told to stop."""

    def __init__(self, address: Callable[[], http.client.HTTPConnection], *, kept: bool) -> None:
        super().__init__()
        self._address, self._kept = address, kept
        self.answers, self.failure = 0, ""
        self.enough = threading.Event()

    def run(self) -> None:
        connection = self._address()
        try:
            while not self.enough.is_set():
                # A client that sends over a closed connection would open another by itself, and hide the loss.
                connection.auto_open = 0 if self._kept and self.answers else 1
                if say(connection, "a") != " ".join(WORDS):
                    raise AssertionError("another answer than ever")
                self.answers += 1
                if not self._kept:
                    connection.close()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            connection.close()


def test_a_handover_loses_nothing(paths: Paths, config: str) -> None:
    """While requests come without a pause, over kept connections and new ones, a second server takes the place of the
    first: every request is answered, a stream that runs goes on to its end, and the engines stay the same."""
    with Server(paths, config) as old:
        port = int(old.url.rsplit(":", 1)[1])

        def connection() -> http.client.HTTPConnection:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        say(connection(), "a")
        say(connection(), "long")
        before = pids(old)
        assert set(before) == {"a", "long"}
        stream = connection()
        stream.request("POST", "/v1/chat/completions", body("long", stream=True), {"content-type": "application/json"})
        streamed = stream.getresponse()
        first = streamed.readline()
        idle = connection()
        say(idle, "a")
        idle.auto_open = 0
        asking = [Asking(connection, kept=kept) for kept in (True, True, False)]
        for each in asking:
            each.start()
        until(lambda: all(each.answers > 2 for each in asking), "the clients to be under way")
        with Server(paths, config, flags=["--handover"]) as new:
            assert new.greeting["listen"] == old.greeting["listen"]
            counts = [each.answers for each in asking]
            until(lambda: all(e.answers > n + 2 or e.failure for e, n in zip(asking, counts, strict=True)), "more")
            assert pids(new) == before
            rest = streamed.read()
            text = "".join(
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in (first + rest).decode().splitlines()
                if line.startswith("data: {")
            )
            assert text == " ".join(LONG) and b"[DONE]" in rest
            assert say(idle, "a") == " ".join(WORDS), "a connection that waited goes on too"
            assert old.process is not None and old.process.wait(30) == 0
            for each in asking:
                each.enough.set()
                each.join(30)
            assert [each.failure for each in asking] == ["", "", ""]
            assert pids(new) == before
            told = [event.text for event in new.client.events() if event.kind == "server.handover"]
            assert any(f"took over from process {old.greeting['pid']}" in text for text in told)
            assert new.client.status().pid == new.pid
            for each_connection in (idle, stream):
                each_connection.close()
        old._wait()


def test_what_a_server_outlives_and_how_it_ends(paths: Paths, config: str) -> None:
    """With nothing to take over from, --handover starts a server and says so. When the server that was to take over
    ends before it has, the first one goes on as before. One that cannot start does not take over: the running one never
    hears of it. SIGUSR1 ends a server in order and leaves its engines, and the next one goes on with them. A second
    SIGTERM ends running answers at once, each with an error event."""
    endless = config.replace("context: 1024", "context: 65536")
    with Server(paths, endless, flags=["--handover"]) as server:
        assert handovers(server) == ["no server runs that could hand over: started as ever"]
        _a_successor_goes_away(server)
        before = handovers(server)
        other = Server(paths, flags=["--handover"])
        other.write(config.replace("context", "contxt"))
        ended = subprocess.run(other.command(), env=other.environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode != 0 and "contxt" in ended.stderr
        assert handovers(server) == before
        assert server.client.status().pid == server.pid
        server.write(endless)

        running = pids(server)
        assert set(running) == {"a", "long"}
        os.kill(server.pid, signal.SIGUSR1)
        assert server._wait() == 0
        assert not paths.daemon_file.exists()
        server.flags = ()
        server.start()
        assert pids(server) == running

        connection = connected(server)
        asked = body("long", 60000, stream=True, ignore_eos=True)
        connection.request("POST", "/v1/chat/completions", asked, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.readline()
        told = server.said().count("ending: SIGTERM")
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: server.said().count("ending: SIGTERM") > told, "the end to begin")
        os.kill(server.pid, signal.SIGTERM)
        assert b"shutting down" in answer.read()
        assert server._wait() == 0
        connection.close()


def test_the_story_of_handovers(paths: Paths, config: str) -> None:
    """Each of several handovers is told in its order and as what it was: one that ended, and one that took over."""
    with Server(paths, config) as first, ExitStack() as others:
        connection = connected(first)
        say(connection, "a")
        connection.close()
        servers = [first]
        for _ in range(3):
            servers.append(others.enter_context(Server(paths, config, flags=["--handover"])))
            assert servers[-2]._wait() == 0
        (chapter,) = servers[-1].client.story("a").chapters
        told = [line.text for line in chapter.lines if "wait" not in line.text]
        assert told[0].startswith("started") and told[1].startswith("ready")
        ending = "Corral is ending: another server takes over, with the engines"
        expected = [
            text
            for old in servers[:-1]
            for text in (ending, f"taken over from process {old.pid}: it was running already")
        ]
        assert told[2:] == expected


def handovers(server: Server) -> list[str]:
    return [event.text for event in server.client.events() if event.kind == "server.handover"]


def connected(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), timeout=60)


def _a_successor_goes_away(server: Server) -> None:
    connection = connected(server)
    say(connection, "long")
    before = pids(server)
    connection.request("POST", "/v1/chat/completions", body("long"), {"content-type": "application/json"})
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(str(server.paths.handover_socket))
        waiting.listen(1)
        with request(Address(socket=server.paths.control_socket), "POST", "/control/handover", {}):
            way, _ = waiting.accept()
        way.close()
    server.paths.handover_socket.unlink()
    assert connection.getresponse().status == 200
    until(lambda: "goes on" in " ".join(event.text for event in server.client.events()), "it to be told")
    other = connected(server)
    assert say(other, "a") == " ".join(WORDS)
    other.close()
    connection.close()
    assert pids(server)["long"] == before["long"]
