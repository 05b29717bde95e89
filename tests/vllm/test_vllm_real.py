"""A real vLLM on the processor behind a real server. Its starts take long, so each test does much with one."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from corral.config.paths import Paths
from support.engines import lives
from support.server import Server, until
from support.vllm import START, environment, keep_flags, remember_flags, tiny_llama

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3000)]

WITHIN_S = 1300.0
JSON = {"content-type": "application/json"}


@pytest.fixture
def config(paths: Paths) -> Iterator[str]:
    found, model = environment(), tiny_llama()
    remember_flags(paths)
    yield f"""
        max_active: 1
        timeouts: {{start: {START}, queue: {START}, stop: 60s, drain: 10m}}
        executables: {{vllm: {found}}}
        models:
          - name: tiny
            source: {model}
            engine: vllm
            context: 1024
            max_num_seqs: 32
            sleep: 1
            args: [--enforce-eager]
          - {{name: demo, source: 'builtin:demo', executable: embedded}}
    """
    keep_flags(paths)


def post(server: Server, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=WITHIN_S)
    try:
        connection.request("POST", path, json.dumps(body), JSON)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def chat(server: Server, text: str = "the quick brown fox", model: str = "tiny", **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}
    status, _, said = post(server, "/v1/chat/completions", body)
    assert status == 200, said
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


def events(said: bytes) -> list[Any]:
    datas = [line[6:] for line in said.split(b"\n") if line.startswith(b"data: ")]
    assert datas[-1] == b"[DONE]", said
    return [json.loads(each) for each in datas[:-1]]


def unit(server: Server, model: str = "tiny") -> Any:
    return next((each for each in server.client.units() if each.model == model), None)


def pid_of(server: Server) -> int:
    pid = unit(server).pid
    assert isinstance(pid, int)
    return pid


def test_chats_of_every_kind(paths: Paths, config: str) -> None:
    """Streams, 32 requests at once, other dialects, counted tokens and errors; asked to stop, it ends what runs."""
    with Server(paths, config) as server:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "the dog"}], "max_tokens": 8, "stream": True}
        status, head, said = post(server, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        found = events(said)
        assert status == 200 and found[-1]["usage"]["completion_tokens"] == 8
        assert b": waiting (loading)" in said, "it was told while it waited, before there was a unit to name"
        status, head, _ = post(server, "/v1/chat/completions", body)
        assert status == 200 and head["x-corral-unit"] == "tiny.1"
        assert sum(bool(each["choices"]) for each in found) >= 2, "it came in pieces"
        assert any(event.kind == "unit.progress" for event in server.client.events(model="tiny"))
        now = unit(server)
        assert now.engine == "vllm" and now.slots == 32 and now.context == 1024
        assert now.memory_bytes > 500 << 20, "all of its processes are counted"

        with ThreadPoolExecutor(32) as pool:
            many = list(pool.map(lambda n: chat(server, f"number {n}"), range(32)))
        assert [each["usage"]["completion_tokens"] for each in many] == [8] * 32
        assert chat(server)["choices"] == chat(server)["choices"], "temperature 0"

        counted = json.loads(post(server, "/v1/messages/count_tokens", {**body, "stream": False})[2])["input_tokens"]
        status, _, said = post(server, "/v1/messages", {**body, "stream": False})
        answer = json.loads(said)
        assert status == 200 and answer["usage"]["input_tokens"] == counted > 0
        status, head, said = post(
            server,
            "/api/chat",
            {
                "model": "tiny",
                "stream": False,
                "messages": body["messages"],
                "options": {"num_predict": 4, "mirostat": 1},
            },
        )
        assert status == 200 and json.loads(said)["eval_count"] == 4
        assert "mirostat" in head["x-corral-ignored-options"]
        status, _, said = post(server, "/v1/responses", {"model": "tiny", "input": "hi", "max_output_tokens": 16})
        assert status == 200 and json.loads(said)["usage"]["output_tokens"] == 16
        status, _, said = post(server, "/api/generate", {"model": "tiny", "prompt": "hi", "raw": True})
        assert json.loads(said)["code"] == "not_offered", said
        status, _, said = post(server, "/v1/chat/completions", {**body, "stream": False, "max_tokens": 100000})
        assert status == 400, said

        pid = pid_of(server)
        family = [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
        assert len(family) > 2
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(
                post, server, "/v1/chat/completions", {**body, "max_tokens": 400, "ignore_eos": True, "temperature": 0}
            )
            until(lambda: unit(server).busy, "the stream to run")
            server.client.stop("tiny")
            status, _, said = running.result(WITHIN_S)
        assert status == 200 and events(said)[-1]["choices"][0]["finish_reason"] == "length", "it was let end"
        until(lambda: not any(lives(each) for each in family), "all of its processes to end", 90)


def test_it_sleeps_survives_and_is_brought_back(paths: Paths, config: str) -> None:
    """Another model has it sleep, not end. kill -9 of Corral leaves it asleep, and the next Corral wakes it for a
    request. kill -9 of itself is a crash, after which the next request gets another."""
    with Server(paths, config) as server:
        first = chat(server)
        pid = pid_of(server)
        chat(server, model="demo")
        assert unit(server).state == "sleeping" and pid_of(server) == pid
        again = chat(server)
        assert again["choices"] == first["choices"] and pid_of(server) == pid, "the same process, awake"
        assert unit(server).state == "ready" and unit(server).generation == 1

        chat(server, model="demo")
        server.kill()
        assert lives(pid)
        server.start()
        assert unit(server).state == "sleeping" and pid_of(server) == pid, "taken over as it was"
        assert chat(server)["choices"] == first["choices"] and pid_of(server) == pid

        os.kill(pid, signal.SIGKILL)
        until(lambda: unit(server) is None or unit(server).state != "ready", "the crash to be seen")
        assert chat(server)["choices"] == first["choices"]
        assert pid_of(server) != pid and unit(server).generation == 2
        assert any("killed it" in str(event.text) for event in server.client.events(model="tiny"))
