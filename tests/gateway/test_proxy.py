"""The request path against engines that behave and engines that do not."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial
from typing import Any

import pytest

from corral.engines.plan import Endpoint
from corral.errors import DeadlinePassed, EngineGone
from corral.gateway.path import upstream
from corral.gateway.path.again import IN_ALL
from gateway.stable import Stable, Unit
from gateway.wire import ask, connected, until

CHAT = "/v1/chat/completions"


def chat(model: str | None = "m", stream: bool = False, **more: Any) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {**named, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}


def words(events: list[str]) -> list[str]:
    found = []
    for data in events:
        if data != "[DONE]":
            for choice in json.loads(data).get("choices", []):
                if content := choice["delta"].get("content"):
                    found.append(content.strip())
    return found


async def stats(unit: Unit) -> dict[str, int]:
    async with upstream.request(Endpoint(unit.socket), "GET", b"/fake/stats", []) as response:
        found: dict[str, int] = json.loads(await response.read())
        return found


async def works_as(unit: Unit, generation: int) -> bool:
    """Whether that generation is up and has a request."""
    try:
        return unit.generation == generation and unit.running and (await stats(unit))["active"] == 1
    except EngineGone:
        return False


@pytest.mark.parametrize(("said", "means"), [("5m", 300.0), ("0", 0.0), ("-1", float("inf"))])
async def test_a_request_says_how_long_its_model_stays(stable: Stable, said: str, means: float) -> None:
    """X-Corral-Keep-Alive is the model's idle time from then on; the engine does not see it."""
    stable.add("m")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(), {"x-corral-keep-alive": said})
    assert answer.status == 200
    assert (await ask(stable.address, "POST", CHAT, chat())).status == 200
    assert stable.keep_alives == [means, None]


async def test_a_keep_alive_that_is_no_duration_is_refused(stable: Stable) -> None:
    """A senseless X-Corral-Keep-Alive is a 400 that says what would be right."""
    stable.add("m")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(), {"x-corral-keep-alive": "soon"})
    assert answer.status == 400
    assert "X-Corral-Keep-Alive" in answer.json["error"]["message"]


async def test_a_unary_answer_comes_whole_with_our_headers(stable: Stable) -> None:
    """The engine's body is relayed byte for byte, and who answered and what it cost is in the headers."""
    stable.add("m")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(), {"x-request-id": "mine-1", "authorization": "Bearer k"})
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "w0 w1 w2 "
    assert answer.headers["x-corral-model"] == "m"
    assert answer.headers["x-corral-unit"] == "m.1"
    assert float(answer.headers["x-corral-load-ms"]) > 0
    assert float(answer.headers["x-corral-queue-ms"]) >= 0
    assert float(answer.headers["x-corral-swap-ms"]) == 0
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["server"] == "corral"
    second = await ask(stable.address, "POST", CHAT, chat())
    assert float(second.headers["x-corral-load-ms"]) == 0
    assert second.headers["x-request-id"].startswith("req_")


async def test_only_the_models_name_changes_on_its_way(stable: Stable) -> None:
    """An alias is replaced by the model's name in the raw body; the engine sees every other byte as it was sent."""
    stable.add("real", aliases=("alias",))
    await stable.open()
    body = b'{ "x" : 1.50,\t"model":"alias", "messages": [{"content": "\xc3\xa9\\u00e9"}]  }'
    answer = await ask(stable.address, "POST", CHAT, body)
    assert answer.json["fake"]["model"] == "real"
    assert answer.json["fake"]["body_sha256"] == hashlib.sha256(body.replace(b"alias", b"real")).hexdigest()


async def test_a_body_of_megabytes_arrives_whole(stable: Stable) -> None:
    """An image in a request passes as it is."""
    stable.add("real", aliases=("alias",))
    await stable.open()
    body = b'{"messages": ["' + b"aGVsbG8" * 700_000 + b'"], "model": "alias"}'
    answer = await ask(stable.address, "POST", CHAT, body)
    assert answer.json["fake"]["body_sha256"] == hashlib.sha256(body.replace(b"alias", b"real")).hexdigest()


async def test_secrets_and_connection_fields_stay_here(stable: Stable) -> None:
    """Keys, cookies and hop-by-hop fields do not reach the engine; the request id and others do."""
    stable.add("m")
    await stable.open()
    sent = {
        "authorization": "Bearer secret", "cookie": "a=b", "x-api-key": "k", "x-mine": "kept", "x-hop": "no",
        "connection": "x-hop, keep-alive", "te": "trailers", "x-request-id": "id-7",
    }  # fmt: skip
    answer = await ask(stable.address, "POST", "/tokenize", {"model": "m", "content": "x"}, sent)
    seen = answer.json["headers"]
    assert seen["x-mine"] == "kept"
    assert seen["x-request-id"] == "id-7"
    assert not {"authorization", "cookie", "x-api-key", "x-hop", "te", "accept-encoding"} & set(seen)


async def test_a_stream_arrives_event_by_event_with_its_end(stable: Stable) -> None:
    """All events arrive in order, untouched, up to [DONE]."""
    stable.add("m", ["--chunks", "40"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-corral-unit"] == "m.1"
    assert words(answer.events) == [f"w{i}" for i in range(40)]
    assert answer.events[-1] == "[DONE]"
    assert not answer.broken


async def test_sixty_four_streams_at_once_keep_their_order(stable: Stable) -> None:
    """64 concurrent streams: every one answered, none cut, each in order."""
    unit = stable.add("m", ["--chunks", "30", "--chunk-interval-ms", "2"])
    await stable.open()
    answers = await asyncio.gather(*(ask(stable.address, "POST", CHAT, chat(stream=True)) for _ in range(64)))
    for answer in answers:
        assert answer.status == 200
        assert words(answer.events) == [f"w{i}" for i in range(30)]
        assert answer.events[-1] == "[DONE]"
    assert (await stats(unit))["finished"] == 64
    assert stable.held == 0


@pytest.mark.parametrize("how", ["--die-after-chunks", "--cut-after-chunks"])
async def test_a_stream_that_breaks_ends_with_an_error_event(stable: Stable, how: str) -> None:
    """Where nothing goes on with it, it keeps what came, then says what happened, and has no [DONE]."""
    unit = stable.add("m", [how, "2", "--chunks", "9"])
    stable.change(resume=False)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True))
    assert answer.status == 200
    assert not answer.broken
    assert words(answer.events[:-1]) == ["w0", "w1"]
    error = json.loads(answer.events[-1])["error"]
    assert error["code"] == "engine_gone"
    assert error["type"] == "server_error"
    assert error["hint"]
    assert unit.gone == []
    assert stable.held == 0


async def test_a_request_is_tried_again_before_the_first_byte(stable: Stable) -> None:
    """An engine that drops the request is reported, and another try answers as if nothing had been."""
    unit = stable.add("m", ["--drop-requests", "1"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True))
    assert words(answer.events) == ["w0", "w1", "w2"]
    assert len(unit.gone) == 1


async def test_a_dead_engines_replacement_answers(stable: Stable) -> None:
    """An engine that died unseen costs the client nothing but time."""
    unit = stable.add("m")
    await stable.open()
    await ask(stable.address, "POST", CHAT, chat())
    assert unit.process is not None
    unit.process.kill()
    unit.process.wait()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert answer.status == 200
    assert answer.headers["x-corral-unit"] == "m.2"


async def test_an_engine_that_dies_before_its_first_event_is_replaced(stable: Stable) -> None:
    """The head of a stream is held until its first event, so dying in between is still invisible."""
    stable.add("m", ["--die-after-chunks", "0"], [])
    await stable.open()
    body = {"model": "m", "prompt": "x", "stream": True}
    answer = await ask(stable.address, "POST", "/v1/completions", body)
    assert answer.headers["x-corral-unit"] == "m.2"
    assert answer.events[-1] == "[DONE]"


async def test_a_request_that_kills_engines_is_not_tried_for_ever(stable: Stable) -> None:
    """After one more try it is a clear 502 with a hint and the unit's name."""
    unit = stable.add("m", ["--die-of-requests"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert answer.status == 502
    assert answer.json["error"]["code"] == "engine_gone"
    assert answer.json["error"]["hint"]
    assert answer.headers["x-corral-unit"] == "m.2"
    assert len(unit.gone) == 2
    assert stable.held == 0


@pytest.mark.parametrize("drops", [IN_ALL - 1, IN_ALL])
async def test_an_engine_that_drops_requests_and_lives_is_asked_again(stable: Stable, drops: int) -> None:
    """One that had no memory for another thread, say: no request is to blame, and some tries later it may answer."""
    unit = stable.add("m", ["--drop-requests", str(drops)])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.headers["x-corral-unit"]) == (200 if drops < IN_ALL else 502, "m.1")
    assert len(unit.gone) == drops
    assert stable.held == 0


STARVED = "decode() failed: std::bad_alloc"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", ["400", "500"])
async def test_an_engine_without_memory_is_replaced_and_not_quoted(stable: Stable, status: str, stream: bool) -> None:
    """Its own word that memory was not enough is no answer: the unit is reported, and the next one answers."""
    unit = stable.add("m", ["--answer-status", status, "--answer-message", STARVED], [])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=stream))
    assert answer.status == 200
    assert answer.headers["x-corral-unit"] == "m.2"
    assert unit.ailed == [STARVED]
    assert stable.held == 0


async def test_an_error_that_is_a_streams_first_event_is_held_back_too(stable: Stable) -> None:
    """llama.cpp has sent the head of a stream when its first computation fails."""
    unit = stable.add("m", ["--chunks", "0", "--error-event", STARVED], [])
    await stable.open()
    body = {"model": "m", "prompt": "x", "stream": True}
    answer = await ask(stable.address, "POST", "/v1/completions", body)
    assert answer.headers["x-corral-unit"] == "m.2"
    assert answer.events[-1] == "[DONE]"
    assert unit.ailed == [STARVED]


@pytest.mark.parametrize("apart_ms", ["0", "20"], ids=["in one piece", "in pieces"])
@pytest.mark.parametrize("headers", [{}, {"x-corral-keep-alive": "5m"}], ids=["fast", "task"])
async def test_a_stream_that_runs_out_of_memory_goes_on(stable: Stable, headers: dict[str, str], apart_ms: str) -> None:
    """Its engine says so when the client has some of it: that is not passed on, and the next engine says the rest."""
    starved = ["--chunks", "2", "--error-event", STARVED, "--chunk-interval-ms", apart_ms]
    unit = stable.add("m", starved, ["--chunks", "1"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True), headers)
    assert words(answer.events) == ["w0", "w1", "w0"] and b'"error"' not in answer.body
    assert b": corral.resumed unit=m.2\n" in answer.body
    assert unit.ailed == [STARVED]
    assert stable.held == 0


@pytest.mark.parametrize("apart_ms", ["0", "20"], ids=["in one piece", "in pieces"])
async def test_a_translated_stream_that_runs_out_of_memory_goes_on(stable: Stable, apart_ms: str) -> None:
    """Also in lines that are made of its events."""
    starved = ["--chunks", "2", "--error-event", STARVED, "--chunk-interval-ms", apart_ms]
    unit = stable.add("m", starved, ["--chunks", "1"])
    await stable.open()
    answer = await ask(stable.address, "POST", "/api/chat", chat(stream=True))
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "w0 w1 w0 " and lines[-1]["done"] is True
    assert [line.get("corral_resumed", False) for line in lines].count(True) == 1
    assert unit.ailed == [STARVED]


@pytest.mark.parametrize("more", [{"logprobs": True}, {"resume": False}], ids=["cannot", "may not"])
async def test_a_stream_that_runs_out_of_memory_reports_its_engine(stable: Stable, more: dict[str, Any]) -> None:
    """Where another engine cannot or may not go on, the client is told; the next request has a new one."""
    unit = stable.add("m", ["--chunks", "2", "--error-event", STARVED], [])
    if "resume" in more:
        stable.change(resume=False)
        more = {}
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True, **more))
    assert words(answer.events[:-1]) == ["w0", "w1"]
    error = json.loads(answer.events[-1])["error"]
    assert STARVED in error["message"] and error["code"] == "out_of_memory" and error["hint"]
    assert unit.ailed == [STARVED]
    assert (await ask(stable.address, "POST", CHAT, chat())).headers["x-corral-unit"] == "m.2"


async def test_a_stream_that_exhausts_every_engine_ends(stable: Stable) -> None:
    """After the second engine its client is told; that one is not replaced for its sake."""
    unit = stable.add("m", ["--chunks", "2", "--error-event", STARVED])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True))
    assert words(answer.events[:-1]) == ["w0", "w1", "w0", "w1"]
    assert json.loads(answer.events[-1])["error"]["code"] == "out_of_memory"
    assert unit.ailed == [STARVED] and unit.generation == 2
    assert stable.held == 0


async def test_a_request_that_always_exhausts_memory_ends(stable: Stable) -> None:
    """Over the second engine it is told so; that engine is not replaced for its sake."""
    unit = stable.add("m", ["--answer-status", "500", "--answer-message", STARVED])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.json["error"]["code"]) == (507, "out_of_memory")
    assert STARVED in answer.json["error"]["message"]
    assert answer.json["error"]["hint"]
    assert answer.headers["x-corral-unit"] == "m.2"
    assert unit.ailed == [STARVED]
    assert unit.running
    assert stable.held == 0


async def test_an_error_that_quotes_the_client_costs_no_engine(stable: Stable) -> None:
    """Nobody has an engine replaced by asking for it."""
    said = "Invalid tool_choice: std::bad_alloc"
    unit = stable.add("m", ["--answer-status", "400", "--answer-message", said])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.json["error"]["message"]) == (400, said)
    assert unit.ailed == []


async def test_a_failed_computation_is_tried_once_more(stable: Stable) -> None:
    """What may be over at the next try is tried again on the same engine; after that its error is the answer."""
    unit = stable.add("m", ["--answer-status", "500", "--answer-message", "Compute error."])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.json["error"]["message"]) == (500, "Compute error.")
    assert (await stats(unit))["requests"] == 2
    assert (unit.ailed, unit.gone) == ([], [])


async def test_ends_that_others_caused_do_not_count_against_a_request(stable: Stable) -> None:
    """A request whose engine is killed from outside, twice and more, is still answered by the next one."""
    unit = stable.add("m", *[["--first-byte-s", "60"]] * 3, [])
    await stable.open()
    asking = asyncio.create_task(ask(stable.address, "POST", CHAT, chat()))
    for generation in (1, 2, 3):
        await until(partial(works_as, unit, generation), "the engine has it")
        assert unit.process is not None
        unit.process.kill()
    answer = await asking
    assert (answer.status, answer.headers["x-corral-unit"]) == (200, "m.4")


async def test_a_request_that_outlives_every_engine_ends(stable: Stable) -> None:
    """However blameless, there is an end to it."""
    unit = stable.add("m", ["--first-byte-s", "60"])
    await stable.open()
    asking = asyncio.create_task(ask(stable.address, "POST", CHAT, chat()))
    for generation in range(1, IN_ALL + 1):
        await until(partial(works_as, unit, generation), "the engine has it")
        assert unit.process is not None
        unit.process.kill()
    answer = await asking
    assert (answer.status, answer.json["error"]["code"]) == (502, "engine_gone")
    assert unit.generation == IN_ALL


async def test_a_post_through_upstream_is_not_sent_twice(stable: Stable) -> None:
    """What an unknown path does to an engine is unknown: once it has the request, there is no second try."""
    unit = stable.add("m", ["--drop-requests", "99"])
    await stable.open()
    answer = await ask(stable.address, "POST", "/upstream/m/slots/0", b"x")
    assert answer.status == 502
    assert len(unit.gone) == 1


async def test_the_engines_own_errors_pass_unchanged(stable: Stable) -> None:
    """A status and body of the engine's are its answer, not ours."""
    stable.add("m", ["--answer-status", "422"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert answer.status == 422
    assert answer.json["error"]["message"] == "as told"
    assert answer.headers["x-corral-unit"] == "m.1"


async def test_a_client_that_leaves_the_queue_frees_its_place(stable: Stable) -> None:
    """Before a lease is granted, leaving gives the place back."""
    stable.add("m")
    stable.gate.clear()
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat())
        await until(lambda: stable.waiting == 1, "queued")
        wire.drop()
        await until(lambda: stable.waiting == 0, "left")
    assert stable.granted == 0


async def test_a_client_that_leaves_during_prefill_frees_the_engine(stable: Stable) -> None:
    """Before the first byte, leaving closes the engine's connection and gives the lease back."""
    unit = stable.add("m", ["--first-byte-s", "60"])
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat())
        await until(lambda: stable.held == 1, "held")

        async def active() -> bool:
            return (await stats(unit))["active"] == 1

        await until(active, "the engine works on it")
        wire.drop()
        await until(lambda: stable.held == 0, "released")

    async def aborted() -> bool:
        return (await stats(unit))["aborted"] == 1

    await until(aborted, "the engine saw it")
    assert unit.gone == []


async def test_a_client_that_leaves_midway_frees_the_engine(stable: Stable) -> None:
    """In the middle of a stream, leaving closes the engine's connection and gives the lease back."""
    unit = stable.add("m", ["--stall-after-chunks", "2", "--chunks", "9"])
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat(stream=True))
        await wire.start()
        got = b""
        while b"w1" not in got:
            got += await wire.piece()
        assert stable.held == 1
        wire.drop()
        await until(lambda: stable.held == 0, "released")

    async def aborted() -> bool:
        return (await stats(unit))["aborted"] == 1

    await until(aborted, "the engine saw it")


async def test_a_slow_reader_slows_the_engine_and_not_the_memory(stable: Stable) -> None:
    """While a client does not read, the engine is not read either; when it reads again, nothing is missing."""
    chunks, size = 400, 50_000
    unit = stable.add("m", ["--chunks", str(chunks), "--chunk-bytes", str(size)])
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat(stream=True))
        await wire.start()
        seen = -1

        async def stuck() -> bool:
            nonlocal seen
            before, seen = seen, (await stats(unit))["chunks"]
            await asyncio.sleep(0.1)
            return seen == before and seen > 0

        await until(stuck, "the engine waits")
        # "·" is two bytes: the whole is 40 MB, of which kernel buffers and ours hold a small part.
        assert seen < chunks / 4
        answer = await wire.rest()
    assert words([data.replace("·", "") for data in answer.events]) == [f"w{i}" for i in range(chunks)]


async def test_a_large_answer_passes_whole(stable: Stable) -> None:
    """An answer beyond what is held is relayed with its length, complete."""
    stable.add("m", ["--chunks", "100", "--chunk-bytes", "50000"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert len(answer.body) > 9_000_000
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.json["usage"]["completion_tokens"] == 100


async def test_a_full_queue_says_where_and_when(stable: Stable) -> None:
    """503 with Retry-After, and the position in body and header."""
    stable.add("m")
    stable.change(max_queue=0)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-corral-queue-position"] == "0"
    assert answer.json["error"]["code"] == "queue_full"
    assert answer.json["error"]["queue_position"] == 0


async def test_a_passed_deadline_is_a_504(stable: Stable) -> None:
    """What leasing raises comes out in OpenAI's shape with its own status."""
    stable.add("m")
    stable.lease_error = DeadlinePassed("waited 600 s", hint="try later")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.json["error"]["code"]) == (504, "deadline_passed")


async def test_bugs_are_a_500_in_the_same_shape(stable: Stable) -> None:
    """An exception of ours is logged and answered, and the connection's next request is served."""
    stable.add("m")
    stable.lease_error = RuntimeError("boom")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat())
    assert (answer.status, answer.json["error"]["code"]) == (500, "bug")
    assert "boom" not in answer.body.decode()


async def test_requests_follow_each_other_on_one_connection(stable: Stable) -> None:
    """Keep-alive works after unary answers, streams and errors alike."""
    stable.add("m")
    await stable.open()
    async with connected(stable.address) as wire:
        for body, status in [(chat(), 200), (chat(stream=True), 200), (chat("nope"), 404), (b"{", 400), (chat(), 200)]:
            wire.request("POST", CHAT, body)
            answer = await wire.rest()
            assert answer.status == status
            wire.http.start_next_cycle()
            wire.status = 0
