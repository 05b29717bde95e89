"""What a stream's client hears while it waits for its model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai

from corral.errors import DeadlinePassed
from gateway.stable import Stable
from gateway.test_openai_client import WORDS, add_llama, user
from gateway.test_proxy import chat, words
from gateway.wire import Answer, Wire, ask, connected, until
from support.ggufs import chain_text, write_chain

CHAT = "/v1/chat/completions"
PROGRESS = {"x-corral-progress": "1"}


async def heard(wire: Wire, what: bytes, times: int = 1) -> bytes:
    got = b""
    while got.count(what) < times:
        piece = await wire.piece()
        assert piece, got
        got += piece
    return got


async def rest(wire: Wire, got: bytes) -> Answer:
    found = await wire.rest()
    return Answer(found.status, found.headers, got + found.body, found.broken)


def progress(answer: Answer) -> list[dict[str, Any]]:
    blocks = [block for block in answer.body.decode().split("\n\n") if block.startswith("event: corral.progress\n")]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


async def test_a_stream_that_waits_gets_comments(stable: Stable) -> None:
    """Again and again until its answer comes, which is whole and untouched."""
    stable.add("m")
    stable.change(comments_after_s=0.1)
    stable.gate.clear()
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat(stream=True))
        assert await wire.start() == 200
        assert wire.headers["content-type"].startswith("text/event-stream")
        assert wire.headers["x-request-id"]
        got = await heard(wire, b": waiting (stopped)\n\n", 3)
        stable.gate.set()
        answer = await rest(wire, got)
    assert words(answer.events) == ["w0", "w1", "w2"]
    assert answer.events[-1] == "[DONE]"
    assert stable.held == 0


async def test_the_comments_go_on_while_an_engine_reads(stable: Stable) -> None:
    """A prompt that takes long is no reason to give up either; then nothing but the answer."""
    stable.add("m", ["--first-byte-s", "0.5", "--chunk-interval-ms", "150"])
    stable.change(comments_after_s=0.1)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True), {"x-corral-keep-alive": "5m"})
    assert answer.body.count(b": waiting (answering)\n\n") >= 2
    assert b": waiting" not in answer.body[answer.body.index(b"data: ") :]
    assert words(answer.events) == ["w0", "w1", "w2"]


async def test_an_engine_that_dies_after_comments_is_replaced(stable: Stable) -> None:
    """Comments are no answer: the request is tried again as if nothing had been sent."""
    unit = stable.add("m", ["--first-byte-s", "60"], [])
    stable.change(comments_after_s=0.1)
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat(stream=True), {"x-corral-keep-alive": "5m"})
        await wire.start()
        got = await heard(wire, b": waiting (answering)\n\n")
        assert unit.process is not None
        unit.process.kill()
        answer = await rest(wire, got)
    assert words(answer.events) == ["w0", "w1", "w2"]
    assert unit.generation == 2


async def test_errors_after_a_comment_are_events(stable: Stable) -> None:
    """Corral's own, and an engine's plain one: the status is out, so they come in the stream."""
    stable.add("m", ["--answer-status", "400", "--answer-message", "too long"])
    stable.change(comments_after_s=0.1)
    await stable.open()
    for late in (DeadlinePassed("waited 600 s", hint="try later"), None):
        stable.gate.clear()
        async with connected(stable.address) as wire:
            wire.request("POST", CHAT, chat(stream=True))
            await wire.start()
            got = await heard(wire, b": waiting")
            stable.late_error = late
            stable.gate.set()
            answer = await rest(wire, got)
        assert (answer.status, answer.broken) == (200, False)
        error = json.loads(answer.events[-1])["error"]
        assert error["message"] == ("too long" if late is None else "waited 600 s")
    assert stable.held == 0


async def test_who_asks_for_no_stream_hears_nothing(stable: Stable) -> None:
    """A plain answer's head cannot go out early; nor is there a comment in Ollama's lines."""
    stable.add("m", ["--first-byte-s", "0.4"])
    stable.change(comments_after_s=0.1)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(), PROGRESS)
    assert answer.json["choices"][0]["message"]["content"] == "w0 w1 w2 "
    lines = await ask(stable.address, "POST", "/api/chat", chat(stream=True), {"x-corral-keep-alive": "5m"})
    assert [json.loads(line)["done"] for line in lines.body.splitlines()][-1] is True


async def test_comments_can_be_switched_off(stable: Stable) -> None:
    """`comments_after: never`."""
    stable.add("m", ["--first-byte-s", "0.4"])
    stable.change(comments_after_s=None)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, chat(stream=True), {"x-corral-keep-alive": "5m"})
    assert b": waiting" not in answer.body


async def test_a_client_that_leaves_while_it_waits_frees_its_place(stable: Stable) -> None:
    """Also when its head is out already."""
    stable.add("m")
    stable.change(comments_after_s=0.1)
    stable.gate.clear()
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, chat(stream=True))
        await wire.start()
        await heard(wire, b": waiting")
        wire.drop()
        await until(lambda: stable.waiting == 0, "left")
    assert stable.granted == 0


async def test_progress_is_told_to_who_asks(stable: Stable, short_tmp: Path) -> None:
    """The engine's state while it waits, then how much of the prompt is read, as llama.cpp tells it."""
    model = write_chain(short_tmp / "chain.gguf", WORDS)
    add_llama(stable, "chain", model, "-c", "4096", "-t", "1", "-b", "64", "-ub", "64")
    stable.gate.clear()
    await stable.open()
    body = {"model": "chain", "stream": True, "messages": [{"role": "user", "content": "hi " * 300}]}
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, body, PROGRESS)
        await wire.start()
        got = await heard(wire, b"event: corral.progress\n", 2)
        stable.gate.set()
        answer = await rest(wire, got)
    said = progress(answer)
    assert (said[0]["model"], said[0]["state"]) == ("chain", "stopped")
    percents = [each["percent"] for each in said if "percent" in each]
    assert len(percents) > 2
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert b"prompt_progress" not in answer.body
    assert " ".join(words([data for data in answer.events if "choices" in data])) == chain_text(WORDS)


async def test_openais_library_reads_past_comments(stable: Stable) -> None:
    """openai-python has the answer as ever."""
    stable.add("m", ["--first-byte-s", "0.4"])
    stable.change(comments_after_s=0.1)
    stable.gate.clear()
    await stable.open()
    asyncio.get_running_loop().call_later(0.4, stable.gate.set)
    async with openai.AsyncOpenAI(base_url=f"http://{stable.address}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=user(), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == "w0 w1 w2 "
