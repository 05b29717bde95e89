"""A real vLLM on the processor behind a real server. Its starts take long, so each test does much with one."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from corral.config.paths import Paths
from corral.deploy.grafana.engines import VLLM_PANELS
from support.engines import lives
from support.prometheus import Prometheus, deploy, has_data, running
from support.promql import filled_in, names_in
from support.server import Server, until
from support.vllm import configured

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3000), pytest.mark.lasts(50)]

WITHIN_S = 1300.0
JSON = {"content-type": "application/json"}
LONG = "the same words again and again, so that the second time they are found where they were put; " * 4
MOVES = {
    "vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:prefix_cache_queries_total",
    "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket",
}  # fmt: skip
"""What is more than nothing while it answers."""
STORY = {
    "model": "tiny", "messages": [{"role": "user", "content": "a long story"}], "max_tokens": 900, "stream": True,
    "ignore_eos": True, "temperature": 0, "stream_options": {"include_usage": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(module_paths: Paths) -> Iterator[Server]:
    """A server whose model nobody has asked for yet, unless another of these tests did."""
    with configured(module_paths) as config, Server(module_paths, config) as server:
        yield server


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


def ended(found: list[Any]) -> Any:
    """Why a stream did; its last event tells what it took."""
    return [each["choices"][0]["finish_reason"] for each in found if each["choices"]][-1]


@contextmanager
def asked(server: Server, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """A chat's answer as it begins to come."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=WITHIN_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
        yield connection.getresponse()
    finally:
        connection.close()


def stream_with_a_crash(server: Server, pid: int) -> list[bytes]:
    """The lines of a stream whose engine is killed after its first words."""
    with asked(server, STORY) as answer:
        lines = [answer.readline() for _ in range(6)]
        os.kill(pid, signal.SIGKILL)
        return [*lines, *answer.readlines()]


def unit(server: Server, model: str = "tiny") -> Any:
    return next((each for each in server.client.units() if each.model == model), None)


def pid_of(server: Server) -> int:
    pid = unit(server).pid
    assert isinstance(pid, int)
    return pid


def test_chats_of_every_kind(served: Server) -> None:
    """From its start on: streams, 32 requests at once, other dialects, counted tokens and errors."""
    server = served
    if unit(server) is not None:
        server.client.stop("tiny")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "the dog"}], "max_tokens": 8, "stream": True}
    status, head, said = post(server, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    found = events(said)
    assert status == 200 and found[-1]["usage"]["completion_tokens"] == 8
    assert b": waiting (loading)" in said, "it was told while it waited, before there was a unit to name"
    status, head, _ = post(server, "/v1/chat/completions", body)
    assert status == 200 and head["x-corral-unit"] == f"tiny.{unit(server).generation}"
    assert sum(bool(each["choices"]) for each in found) >= 2, "it came in pieces"
    assert any(event.kind == "unit.progress" for event in server.client.events(model="tiny"))
    now = unit(server)
    assert now.engine == "vllm" and now.slots == 32 and now.context == 1024
    assert now.memory_bytes > 500 << 20, "all of its processes are counted"
    until(lambda: unit(server).footprint_origin == "measured", "its figures", 120)

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


@pytest.mark.prometheus
def test_every_panel_has_data(served: Server, short_tmp: Path) -> None:
    """Each expression of vLLM's panels gives a figure of the unit that served: of what moves, more than nothing."""
    folder = short_tmp / "prometheus"
    missing = {filled_in(query.expr, "1m"): panel.title for panel in VLLM_PANELS for query in panel.queries}
    assert len(missing) >= 12
    deploy(served, "prometheus", "--out", str(folder), "--every", "1s")
    with running(folder / "prometheus.yml", short_tmp / "tsdb") as prometheus, ThreadPoolExecutor(4) as pool:
        deadline = time.monotonic() + WITHIN_S
        while missing:
            assert time.monotonic() < deadline, (missing, prometheus.targets())
            list(pool.map(lambda _: chat(served, LONG, max_tokens=24, ignore_eos=True), range(4)))
            look(prometheus, missing)


def look(prometheus: Prometheus, missing: dict[str, str]) -> None:
    """Takes away what has data by now."""
    for expr in list(missing):
        found = prometheus.query(expr)
        moved = any(float(each["value"][1]) > 0 for each in found) or not names_in(expr).metrics & MOVES
        if has_data(found) and moved:
            assert {each["metric"].get("unit", "") for each in found} == {"tiny"}, (expr, found)
            assert all(float(each["value"][1]) >= 0 for each in found), (expr, found)
            del missing[expr]


def test_a_server_that_runs_already(served: Server, paths: Paths) -> None:
    """Another Corral is told where this vLLM is: it finds out what it calls the model and how long its context is,
    chats with it, is well, and lets go of it without ending it."""
    chat(served)
    pid, endpoint = pid_of(served), unit(served).endpoint
    config = f"models: [{{name: other, engine: vllm, runner: server, endpoint: '{endpoint}', preload: true}}]"
    with Server(paths, config) as server:
        said = chat(server, model="other")
        assert said["choices"] == chat(served)["choices"] and said["model"] == "tiny"
        body = {"model": "other", "messages": [{"role": "user", "content": "the dog"}], "max_tokens": 8, "stream": True}
        status, _, streamed = post(server, "/v1/chat/completions", body)
        assert status == 200 and len(events(streamed)) >= 2
        found = unit(server, "other")
        assert (found.state, found.pid, found.context, found.footprint_bytes) == ("ready", None, 1024, None)
        assert found.engine_version.startswith("vLLM 0.")
        status, _, counted = post(server, "/v1/messages/count_tokens", {**body, "stream": False})
        assert status == 200 and json.loads(counted)["input_tokens"] > 0
        health = server.client.health("other")
        assert health.ok and [each.name for each in health.checks] == ["process", "health", "canary"]
        with ThreadPoolExecutor(32) as pool:
            many = list(pool.map(lambda n: chat(server, f"number {n}", model="other"), range(32)))
        assert [each["usage"]["completion_tokens"] for each in many] == [8] * 32
        server.client.stop("other")
        assert lives(pid)
    assert lives(pid) and chat(served)["model"] == "tiny" and pid_of(served) == pid


def test_it_sleeps_survives_and_is_brought_back(served: Server) -> None:
    """Another model has it sleep, not end. kill -9 of Corral leaves it asleep, and the next Corral wakes it for a
    request. kill -9 of itself is a crash: its stream goes on with another, and so does the next request. Asked
    to stop, it ends what runs, and then all of its processes. The last of these tests: it ends the server too."""
    server = served
    first = chat(server)
    pid, generation = pid_of(server), unit(server).generation
    chat(server, model="demo")
    assert unit(server).state == "sleeping" and pid_of(server) == pid
    again = chat(server)
    assert again["choices"] == first["choices"] and pid_of(server) == pid, "the same process, awake"
    assert unit(server).state == "ready" and unit(server).generation == generation

    assert post(server, "/upstream/tiny/sleep?level=1", {})[0] == 200
    until(lambda: unit(server).state == "sleeping", "it to be seen asleep")
    assert chat(server)["choices"] == first["choices"] and unit(server).state == "ready" and pid_of(server) == pid

    chat(server, model="demo")
    server.kill()
    assert lives(pid)
    server.start()
    assert unit(server).state == "sleeping" and pid_of(server) == pid, "taken over as it was"
    assert chat(server)["choices"] == first["choices"] and pid_of(server) == pid

    for _ in range(3):  # where others work too, all of the answer may be on its way before the kill
        generation += 1
        rest = stream_with_a_crash(server, pid)
        if any(line.startswith(b": corral.resumed") for line in rest):
            break
        chat(server)
        pid = pid_of(server)
    else:
        raise AssertionError((rest[:8], rest[-8:]))
    found = events(b"".join(rest))
    assert found[-1]["usage"]["completion_tokens"] > 100
    assert ended(found) == "length"
    assert pid_of(server) != pid and unit(server).generation == generation
    assert any("killed it" in str(event.text) for event in server.client.events(model="tiny"))
    assert chat(server)["choices"] == first["choices"]

    pid = pid_of(server)
    family = [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
    assert len(family) > 2
    stories = {**STORY, "n": 16, "temperature": 0.7}  # seconds of work, however quick the machine
    with ThreadPoolExecutor(1) as pool, asked(server, stories) as answer:
        said = b"".join(answer.readline() for _ in range(6))
        coming = pool.submit(answer.read)
        server.client.stop("tiny")
        found = events(said + coming.result(WITHIN_S))
    reasons = [choice["finish_reason"] for each in found for choice in each["choices"] if choice["finish_reason"]]
    assert reasons == ["length"] * 16, "it was let end"
    until(lambda: not any(lives(each) for each in family), "all of its processes to end", 90)
    assert server.end() == 0
