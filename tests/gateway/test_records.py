"""Every way in which a request can end leaves exactly one record, which tells how it went."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from corral import clock
from corral.access.desk import Desk, Made
from corral.access.keys import Limits
from corral.errors import (
    CallerError,
    EngineGone,
    Forbidden,
    LimitReached,
    NotJson,
    Stopping,
    Unauthorized,
    UnknownModel,
)
from corral.gateway.app import build
from corral.gateway.dialects.usage import Usage, said, usage_of
from corral.metrics.record import CLIENT_LEFT, TAIL_BYTES, Record, Recorder
from gateway.test_fast import BODY, EVENTS, HEAD, LAST, PATH, TWO, Ready, Scripted, chunk, ready
from gateway.wire import ask, connected, until

USAGE = b'{"usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7}}'
PLAIN = HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(USAGE), USAGE)
COUNTED = chunk(b"data: %b\n\n" % USAGE)
WAYS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "task"])
ID = {"x-request-id": "mine", "traceparent": "00-1-2-01"}
LEFT = "left"


async def only(gateway: Ready) -> Record:
    """The one record that there is once nothing runs any more."""
    await until(lambda: gateway.listeners.in_flight == 0, "it is over")
    (record,) = gateway.recorder.drain()
    assert record.began <= record.ended <= clock.monotonic()
    assert record.granted is None or record.began <= record.granted <= record.ended
    assert record.first is None or (record.granted or record.began) <= record.first <= record.ended
    return record


@WAYS
@pytest.mark.parametrize(
    ("script", "stream", "end"),
    [
        ([PLAIN], False, Usage(5, 2)),
        ([EVENTS, *TWO, COUNTED, LAST], True, Usage(5, 2)),
        ([EVENTS, *TWO, LAST], True, None),
    ],
    ids=["plain", "stream", "uncounted"],
)
async def test_an_answer(fast: bool, script: list[bytes], stream: bool, end: Usage | None) -> None:
    async with ready(Scripted([script], stays=True), fast=fast) as gateway:
        await ask(gateway.address, "POST", PATH, {**BODY, "model": "n", "stream": stream}, ID)
        record = await only(gateway)
    wanted = ("m", "m.1", "openai", PATH, 200, "", "", stream, 0, 0, b"mine", b"00-1-2-01", ())
    assert record[4:12] + record[14:] == wanted
    assert None not in (record.granted, record.first)
    assert record.chunks > 0
    assert usage_of(record.end) == end


@WAYS
async def test_several_answers_are_one_request(fast: bool) -> None:
    """The prompt once, and what all of them wrote."""
    async with ready(Scripted([[PLAIN], [PLAIN], [PLAIN]], stays=True), fast=fast) as gateway:
        await ask(gateway.address, "POST", "/v1/chat/completions", {"model": "m", "messages": [], "n": 3})
        record = await only(gateway)
    assert (record.status, record.outcome, record.retries, usage_of(record.end)) == (200, "", 0, Usage(5, 6))


@WAYS
async def test_of_a_long_answer_the_end_is_kept(fast: bool) -> None:
    body = b"[%b]" % (b"1," * 9000 + USAGE)
    plain = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    async with ready(Scripted([[plain]], stays=True), fast=fast) as gateway:
        await ask(gateway.address, "POST", PATH, BODY)
        assert (await only(gateway)).end == body[-TAIL_BYTES:]


@WAYS
@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"model": "nobody"}, 404, UnknownModel.code),
        (b"{", 400, NotJson.code),
        ({"model": 3}, 400, CallerError.code),
    ],
    ids=["unknown", "no JSON", "odd"],
)
async def test_a_refusal(fast: bool, body: Any, status: int, outcome: str) -> None:
    async with ready(Scripted([[PLAIN]], stays=True), fast=fast) as gateway:
        await ask(gateway.address, "POST", PATH, body)
        record = await only(gateway)
    assert (record.model, record.unit, record.status, record.outcome) == ("", "", status, outcome)
    assert record.granted is None
    assert record.first is not None


@WAYS
async def test_an_engines_own_refusal(fast: bool) -> None:
    """It is an answer as any other."""
    script = [HEAD.replace(b"200 OK", b"400 No") + b"content-length: 2\r\n\r\n{}"]
    async with ready(Scripted([script], stays=True), fast=fast) as gateway:
        await ask(gateway.address, "POST", PATH, BODY)
        record = await only(gateway)
    assert (record.model, record.unit, record.status, record.outcome, record.end) == ("m", "m.1", 400, "", b"{}")


@WAYS
@pytest.mark.parametrize("part", ["head", "body", "all", "stream"])
async def test_a_client_that_leaves(fast: bool, part: str) -> None:
    """Before its request was whole, or its answer there, or in the middle of that."""
    engine = Scripted([[EVENTS + TWO[0], None]] if part == "stream" else [[None]], stays=True)
    async with ready(engine, fast=fast) as gateway, connected(gateway.address) as wire:
        if part in ("head", "body"):
            wire.head("POST", PATH, {}, 100)
            if part == "body":
                wire.body(b"{")
            await until(lambda: gateway.listeners.in_flight == 1, "it is there")
        else:
            wire.request("POST", PATH, BODY)
            if part == "stream":
                await wire.start()
                assert await wire.piece()
            await until(lambda: len(engine.requests) == 1, "it runs")
        wire.drop()
        record = await only(gateway)
        engine.go.set()
    begun = part == "stream"
    asked = part in ("all", "stream")
    assert (record.status, record.outcome) == (200 if begun else CLIENT_LEFT, LEFT)
    assert (record.first is not None, record.granted is not None, record.stream) == (begun, asked, asked)
    assert (record.model, record.unit, record.route) == (("m", "m.1", PATH) if asked else ("", "", PATH))


@WAYS
async def test_a_client_that_leaves_before_its_task_runs(fast: bool) -> None:
    """Nothing was done for it then, and still it was there."""
    engine = Scripted([[PLAIN]], stays=True)
    async with ready(engine, fast=fast) as gateway:
        (listener,) = gateway.listeners._open.values()
        connection = listener._connection()
        connection.connection_made(_Nobody())
        connection.data_received(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{ " % PATH.encode())
        connection.connection_lost(None)
        record = await only(gateway)
    assert (record.status, record.outcome, record.route) == (CLIENT_LEFT, LEFT, PATH)


class _Nobody(asyncio.Transport):
    """A connection that hears nothing."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sslcontext": True}.get(name)

    def write(self, data: object) -> None:
        return


@WAYS
async def test_an_engine_that_dies(fast: bool) -> None:
    """Twice before an answer: the request is given up. Once: it is sent again. In a stream that cannot go on: it ends
    with an error."""
    for scripts, status, outcome, retries in (
        ([[]], 502, EngineGone.code, 1),
        ([[], [PLAIN]], 200, "", 1),
        ([[EVENTS + chunk(b"data: [DONE]\n\n")], [PLAIN]], 200, EngineGone.code, 0),
    ):
        async with ready(Scripted(scripts, stays=False), fast=fast) as gateway:
            await ask(gateway.address, "POST", PATH, BODY)
            record = await only(gateway)
        assert (record.status, record.outcome, record.retries, record.resumes) == (status, outcome, retries, 0)
        assert record.lost == ("gone",) * retries
        assert record.model == "m"


@WAYS
async def test_a_stream_that_goes_on(fast: bool) -> None:
    """With what both engines took."""
    first = [chunk(b'data: {"choices":[{"index":0,"text":"w%d","finish_reason":null}]}\n\n' % n) for n in range(3)]
    rest = (
        b'data: {"choices":[{"index":0,"text":"z","finish_reason":"stop"}],"usage":%b}\n\n'
        % json.dumps({"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}).encode()
    )
    second = [EVENTS, chunk(rest), chunk(b"data: [DONE]\n\n"), LAST]
    async with ready(Scripted([[EVENTS, *first], second], stays=False), fast=fast) as gateway:
        answer = await ask(gateway.address, "POST", PATH, BODY)
        record = await only(gateway)
    assert b"corral.resumed" in answer.body
    assert (record.status, record.outcome, record.retries, record.resumes) == (200, "", 0, 1)
    assert record.lost == ("gone",)
    assert usage_of(record.end) == Usage(5, 4)
    assert record.chunks >= 4


@WAYS
@pytest.mark.parametrize("begun", [True, False])
async def test_a_shutdown(fast: bool, begun: bool) -> None:
    engine = Scripted([[EVENTS + TWO[0], None] if begun else [None]], stays=True)
    async with ready(engine, fast=fast) as gateway, connected(gateway.address) as wire:
        wire.request("POST", PATH, BODY)
        if begun:
            await wire.start()
            assert await wire.piece()
        await until(lambda: len(engine.requests) == 1, "it runs")
        closing = asyncio.create_task(gateway.listeners.close(0.0))
        await wire.rest()
        await closing
        engine.go.set()
        record = await only(gateway)
    assert (record.status, record.outcome) == (200 if begun else 503, Stopping.code)


@asynccontextmanager
async def keyed(tmp_path: Path, *, fast: bool) -> AsyncIterator[tuple[Ready, Made, Made]]:
    """A gateway, a key that may ask models, twice in a minute, and one that may not."""
    desk = Desk(tmp_path / "access.db")
    writing = asyncio.create_task(desk.run())
    made = await desk.create("k", ["infer"], [], Limits(requests_per_minute=2), None)
    other = await desk.create("o", ["pull"], [], Limits(), None)
    try:
        async with ready(Scripted([[PLAIN]], stays=True), fast=fast, desk=desk) as gateway:
            yield gateway, made, other
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await desk.close()


@WAYS
async def test_keys(fast: bool, tmp_path: Path) -> None:
    """Whose it was, and those that were not let in."""
    async with keyed(tmp_path, fast=fast) as (gateway, made, other):
        key = {"authorization": f"Bearer {made.secret}"}
        wrong = {"authorization": f"Bearer {made.secret[:-1]}{'a' if made.secret[-1] != 'a' else 'b'}"}
        for headers, body, status, outcome in (
            (key, BODY, 200, ""),
            (wrong, BODY, 401, Unauthorized.code),
            ({"x-api-key": other.secret}, BODY, 403, Forbidden.code),
            (key, BODY, 200, ""),
            (key, BODY, 429, LimitReached.code),
        ):
            await ask(gateway.address, "POST", PATH, body, headers)
            record = await only(gateway)
            assert (record.status, record.outcome) == (status, outcome)
            assert record.key == (made.key.id if status not in (401, 403) else "")
            assert (record.granted is not None) is (status == 200)
            assert record.model == ("m" if status in (200, 429) else "")


async def test_what_asks_no_model_is_not_counted() -> None:
    """Lists, health, Corral's own routes, what there is not, and what the browser asks first."""
    async with ready(Scripted([[PLAIN]], stays=True)) as gateway:
        for method, path in (
            ("GET", "/health"), ("GET", "/v1/models"), ("GET", "/control/status"), ("POST", "/nothing"), ("GET", PATH),
            ("OPTIONS", PATH), ("POST", "/api/show"), ("GET", "/api/tags"), ("GET", "/"),
        ):  # fmt: skip
            await ask(gateway.address, method, path, {} if method == "POST" else None)
        await until(lambda: gateway.listeners.in_flight == 0, "they are over")
        assert gateway.recorder.drain() == []


async def test_questions_of_ours_are_part_of_what_asked_them() -> None:
    """Counting a prompt's tokens asks its engine twice: one request."""
    prompt, tokens = b'{"prompt":"a"}', b'{"tokens":[1,2,3]}'
    scripts = [[HEAD + b"content-length: %d\r\n\r\n%b" % (len(each), each)] for each in (prompt, tokens)]
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    async with ready(Scripted(scripts, stays=True)) as gateway:
        answer = await ask(gateway.address, "POST", "/anthropic/v1/messages/count_tokens", body)
        record = await only(gateway)
    assert answer.json == {"input_tokens": 3}
    assert (record.model, record.unit, record.dialect, record.status) == ("m", "m.1", "anthropic", 200)
    assert record.route == "/anthropic/v1/messages/count_tokens"
    assert usage_of(record.end) is None


def test_every_route_that_asks_a_model_is_counted(tmp_path: Path) -> None:
    """In all dialects; what is asked of Corral itself is not."""
    nobody = Ready(tmp_path, tmp_path / "s", fast=False)
    routes = build(nobody, nobody)(None).routes
    counted = {route.path for route in routes if route.counted}
    for path in (
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/audio/transcriptions",
        "/rerank", "/tokenize", "/detect", "/upstream/{model}", "/v1/messages", "/v1/messages/count_tokens",
        "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/completion", "/infill", "/ollama/api/chat",
        "/docker/engines/{path}", "/llamacpp/completion",
    ):  # fmt: skip
        assert path in counted
    assert not [path for path in counted if "control" in path or "health" in path or path.endswith(("/show", "/tags"))]


def test_what_was_counted_is_read_again() -> None:
    assert usage_of(said(Usage(7, 3, 2))) == Usage(7, 3, 2)


def test_a_recorder_that_nobody_drains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.metrics.record.MOST", 2)
    recorder = Recorder()
    record = Record(0.0, 0.0, None, None, "", "", "openai", PATH, 200, "", "", False, 0, b"")
    for _ in range(3):
        recorder.add(record)
    assert (recorder.lost, len(recorder.drain()), recorder.drain()) == (1, 2, [])
