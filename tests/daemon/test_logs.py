"""What a real server writes of itself, of requests and of engines, and how it is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from corral.config.settings import Log, Settings
from corral.errors import CorralError
from corral.log import line
from corral.metrics.record import Record
from corral.observability.request_log import KEPT, RequestLog, chosen
from corral.serve_options import ServeOptions
from corral.supervisor import logs
from support.asking import CHAT, Reply, ask
from support.server import Server, until

CHAT_BODY: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "secret words"}],
    "max_tokens": 6,
}


@pytest.fixture
def server(paths: Paths) -> Iterator[Server]:
    config = "log: {format: json, requests: true}\nmodels: [{name: demo, source: 'builtin:demo', parallel: 2}]"
    with Server(paths, config=config) as running:
        yield running


def said(server: Server) -> list[dict[str, Any]]:
    return [json.loads(each) for each in server.said().splitlines()]


def test_requests(server: Server) -> None:
    """Each request is one line of JSON with how it went and none of its words; by its id its engine's own lines are
    found, at once and in the log, for plain answers and streams; the next server finds them too."""
    replies: list[Reply] = [
        ask(server.url, CHAT, None, CHAT_BODY, x_request_id="my-first"),
        ask(server.url, CHAT, None, {**CHAT_BODY, "stream": True}, x_request_id="my-second"),
        ask(server.url, "/api/chat", None, {**CHAT_BODY, "stream": False}, x_request_id="my-third"),
        ask(server.url, CHAT, None, {**CHAT_BODY, "model": "none"}, x_request_id="my-fourth"),
    ]
    assert [each.status for each in replies] == [200, 200, 200, 404]
    tasks = set()
    for name in ("my-first", "my-second", "my-third"):
        first, *lines = server.client.request_lines("demo", name)
        assert first.startswith(f"request {name} on demo.1, ")
        assert any("launch_slot_" in each for each in lines) and any("print_timing" in each for each in lines), lines
        (task,) = {match[1] for each in lines if (match := re.search(r"\btask (\d+) \|", each))}
        tasks.add(task)
    assert len(tasks) == 3
    assert server.client.request_lines("demo", "nobody") == []
    with pytest.raises(CorralError, match="no model is called"):
        server.client.request_lines("none", "my-first")
    done = subprocess.run(
        [sys.executable, "-m", "corral", "logs", "demo", "--request", "nobody"],
        env=server.environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode != 0
    assert "nothing is known of a request nobody to demo" in done.stderr
    assert server.end() == 0

    entries = said(server)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"]) for each in entries)
    assert {each["level"] for each in entries} <= {"debug", "info", "warning", "error"}
    by_id = {each["data"]["request_id"]: each for each in entries if each["event"] == "request"}
    assert set(by_id) == {"my-first", "my-second", "my-third", "my-fourth"}
    one, two, three, four = (by_id[name] for name in ("my-first", "my-second", "my-third", "my-fourth"))
    assert (one["model"], one["unit"], one["data"]["outcome"]) == ("demo", "demo.1", "answered")
    assert one["data"]["queue_s"] <= one["data"]["first_s"] <= one["data"]["total_s"]
    assert 0 < one["data"]["completion_tokens"] <= 6 and one["data"]["prompt_tokens"] > 0
    assert two["data"]["stream"] is True and two["data"]["chunks"] >= 1  # all at once on a busy machine
    assert (three["data"]["dialect"], three["data"]["route"]) == ("ollama", "/api/chat")
    assert (four["model"], four["data"]["status"], four["data"]["outcome"]) == (None, 404, "model_not_found")
    assert {"server.ready", "unit.state", "server.ended"} <= {each["event"] for each in entries}
    log = (server.paths.logs_dir / "demo" / "1.log").read_text()
    assert [match[1] for match in re.finditer(r"^\[corral\] request (\S+) ", log, re.MULTILINE)] == [
        "my-first", "my-second", "my-third",
    ]  # fmt: skip
    assert "secret words" not in server.said()
    assert not any("secret words" in each for each in log.splitlines() if each.startswith("[corral]"))

    server.start()
    first, *lines = server.client.request_lines("demo", "my-first")
    assert first.startswith("request my-first on demo.1, ")
    assert any("print_timing" in each for each in lines)


def test_followed(server: Server) -> None:
    """Who follows a model's log, by the command or by events, hears its engine's next start and loses nothing when the
    log is turned over."""
    command = [sys.executable, "-m", "corral", "logs", "demo", "-f", "--lines", "0"]
    heard: list[str] = []
    changed = threading.Condition()

    def listen() -> None:
        try:
            for each in server.client.follow_logs("demo", 0):
                with changed:
                    heard.append(each)
                    changed.notify_all()
        except CorralError:
            pass  # the server has ended

    server.client.start("demo")
    following = subprocess.Popen(command, env=server.environment, stdout=subprocess.PIPE, text=True)
    listening = threading.Thread(target=listen)
    listening.start()
    try:
        path = server.paths.logs_dir / "demo" / "1.log"
        assert following.stdout is not None
        _until(path, "before", following.stdout.readline)
        with changed:
            assert changed.wait_for(lambda: any("before" in each for each in heard), 60)
        _append(path, "one\n")
        assert logs.cap(path, path.stat().st_size * 2 // 3)  # of a file far over its bound only the end is kept
        _append(path, "two\n")
        server.client.restart("demo")
        next_path = server.paths.logs_dir / "demo" / "2.log"
        until(lambda: ".2.sock" in next_path.read_text(), "the engine to have written what it listens on")
        _append(next_path, "three\n")
        shown: list[str] = []
        while not shown or shown[-1] != "three":
            shown.append(following.stdout.readline().rstrip("\n"))
        with changed:
            assert changed.wait_for(lambda: "three" in heard, 60)
    finally:
        following.kill()
        following.communicate()
        server.end()
        listening.join()
    for lines in (shown, heard):
        assert [each for each in lines if each in ("one", "two", "three")] == ["one", "two", "three"]
        assert any(".2.sock" in each for each in lines[: lines.index("three")])  # of the next start


def _until(path: Path, marker: str, read: Callable[[], str]) -> None:
    """Appends until the reader, who begins at the end, has seen it."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.1):
            _append(path, f"{marker}\n")

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while marker not in read():
            pass
    finally:
        stop.set()
        writing.join()


def _append(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, text.encode())
    os.close(fd)


def _record(request_id: bytes) -> Record:
    return Record(
        1.0, 2.0, 1.1, 1.2, "demo", "demo.1", "openai", "/v1/chat/completions", 200, "", "", False, 1, b"",
        request_id=request_id,
    )  # fmt: skip


def test_lines() -> None:
    """One line for people or for programs, whatever stands in it."""
    text = line("json", "info", 0.5, "unit.state", 'a\n"b" é', model="m", data={"path": Path("/x")})
    assert json.loads(text) == {
        "time": "1970-01-01T00:00:00.500Z", "level": "info", "event": "unit.state", "model": "m", "unit": None,
        "text": 'a\n"b" é', "data": {"path": "/x"},
    }  # fmt: skip
    assert text.count("\n") == 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: x\n", line("human", "warning", 0.5, "bug", "x", data={}))


def test_flags() -> None:
    """What flags say goes before the configuration; either may ask for requests."""
    configured = Settings({}, log=Log("json", False))
    assert chosen(ServeOptions(), configured) == Log("json", False)
    assert chosen(ServeOptions(log_format="human", log_requests=True), configured) == Log("human", True)
    assert chosen(ServeOptions(), Settings({})) == Log("human", False)


async def test_not_wanted(paths: Paths) -> None:
    """Without being asked to, nothing is written, and a bounded number of requests is known."""
    written: list[str] = []

    async def settle() -> None: ...

    each = RequestLog(paths, Log, written.append, str, settle)
    each.take([_record(b"r%d" % number) for number in range(KEPT + 10)])
    await each.flush()
    assert written == []
    assert await each.lines("demo", "r5", "llama.cpp") == []
    assert (await each.lines("demo", f"r{KEPT + 9}", "llama.cpp"))[0].startswith(f"request r{KEPT + 9} on demo.1, ")
