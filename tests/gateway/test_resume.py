"""Streams whose engine dies midway: the rest comes from its successor, as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.demo.where import demo_model
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import Answer, ask, connected
from support.ggufs import THINKING_TEMPLATE, write_chain

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
LONG = 200  # tokens
SURE = 150  # characters: its answer ends there, and of what it says past that end rounding decides, as do batches
TASK = {"x-corral-keep-alive": "5m"}  # such requests take no fast path
THOUGHT = ("<think>\nhm,", *(f"t{i}" for i in range(150)), "so\n</think>\n\nIt", *(f"w{i}" for i in range(150)))


@pytest.fixture
async def demo(stable: Stable, short_tmp: Path) -> AsyncIterator[Stable]:
    """The demo model, and one that thinks; `fast` decides whether requests may take the fast path."""
    add_llama(stable, "demo", Path(str(demo_model())), "-c", "2048", "-t", "1")
    think = write_chain(short_tmp / "think.gguf", THOUGHT, template=THINKING_TEMPLATE, mib=4)
    add_llama(stable, "think", think, "--jinja", "-c", "2048", "-t", "1")
    await stable.open()
    yield stable


TALK = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "What is Corral?"}]}


def asking(path: str = CHAT, **more: Any) -> dict[str, Any]:
    said = {"prompt": "Corral is"} if path == TEXT else {"messages": [{"role": "user", "content": "What is Corral?"}]}
    bound = {"max_tokens": LONG, "temperature": 0, "ignore_eos": True}
    return {"model": "demo", "stream": True, **bound, **said, **more}


async def broken(
    stable: Stable,
    path: str,
    body: dict[str, Any],
    after: bytes = b"\n\n",
    times: int = 10,
    headers: dict[str, str] | None = None,
) -> Answer:
    """The answer to a request whose engine is killed once `after` has come so often."""
    unit = stable.units_by_name[body["model"].partition(":")[0]]
    async with connected(stable.address) as wire:
        wire.request("POST", path, body, headers)
        await wire.start()
        got = b""
        while got.count(after) < times:
            piece = await wire.piece()
            assert piece, got[-500:]
            got += piece
        assert unit.process is not None
        unit.process.kill()
        unit.process.wait()
        rest = await wire.rest()
    return Answer(rest.status, rest.headers, got + rest.body, rest.broken)


def chunks(answer: Answer) -> list[dict[str, Any]]:
    assert answer.events[-1] == "[DONE]", answer.events[-1]
    return [json.loads(data) for data in answer.events[:-1]]


def said(answer: Answer, key: str = "content") -> str:
    choices = [choice for chunk in chunks(answer) for choice in chunk["choices"]]
    return "".join((choice.get("delta") or {}).get(key) or "" for choice in choices)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "task"])
async def test_a_chat_goes_on_exactly(demo: Stable, fast: bool) -> None:
    """At temperature 0 the text is the one of an engine that lives, in events of one answer, with the usage of all."""
    body = asking(stream_options={"include_usage": True})
    whole = await ask(demo.address, "POST", CHAT, body)
    at_once = demo.at_once
    cut = await broken(demo, CHAT, body, headers=None if fast else TASK)
    assert demo.at_once == at_once + fast
    assert b": corral.resumed unit=demo.2\n\n" in cut.body
    assert said(cut)[:SURE] == said(whole)[:SURE]
    for key in ("id", "model", "object"):  # `created` is the moment of each event
        assert len({chunk[key] for chunk in chunks(cut)}) == 1
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks(cut) if chunk["choices"]].count(
        "assistant"
    ) == 1
    usage, expected = chunks(cut)[-1]["usage"], chunks(whole)[-1]["usage"]
    assert usage["completion_tokens"] == expected["completion_tokens"] == LONG
    assert usage["prompt_tokens"] == expected["prompt_tokens"]
    assert usage["total_tokens"] == expected["total_tokens"]
    assert demo.held == 0


async def test_a_text_completion_goes_on_exactly(demo: Stable) -> None:
    """Also one whose prompt is tokens; `usage` and `timings` count both engines."""
    tokens = (await ask(demo.address, "POST", "/tokenize", {"model": "demo", "content": "Corral is"})).json["tokens"]
    whole = await ask(demo.address, "POST", TEXT, asking(TEXT))
    for body in (asking(TEXT), asking(TEXT, prompt=tokens)):
        cut = await broken(demo, TEXT, body)
        assert b": corral.resumed" in cut.body
        assert text(cut)[:SURE] == text(whole)[:SURE]
        last, expected = chunks(cut)[-1], chunks(whole)[-1]
        assert last["usage"]["completion_tokens"] == LONG
        assert last["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
        assert last["timings"]["predicted_n"] == LONG
        assert last["timings"]["predicted_ms"] > 0


def text(answer: Answer) -> str:
    return "".join(choice["text"] for chunk in chunks(answer) for choice in chunk["choices"])


async def test_thoughts_go_on_as_thoughts(demo: Stable) -> None:
    """An engine that dies while its model thinks: what comes next is thought, and then comes the answer."""
    body = {**asking(), "model": "think", "max_tokens": 1000, "ignore_eos": False}
    whole = await ask(demo.address, "POST", CHAT, body)
    cut = await broken(demo, CHAT, body, b'"reasoning_content":" t', 5)
    assert b": corral.resumed" in cut.body
    assert said(cut, "reasoning_content") == said(whole, "reasoning_content")
    assert said(cut) == said(whole)


async def test_an_answer_after_thoughts_goes_on_as_an_answer(demo: Stable) -> None:
    """An engine that dies after it has thought: the thoughts are given back to its successor, and not said again."""
    body = {**asking(), "model": "think", "max_tokens": 1000, "ignore_eos": False}
    whole = await ask(demo.address, "POST", CHAT, body)
    cut = await broken(demo, CHAT, body, b'"content":" w', 5)
    assert b": corral.resumed" in cut.body
    assert said(cut, "reasoning_content") == said(whole, "reasoning_content")
    assert said(cut) == said(whole)


async def resumed(stable: Stable, path: str, body: dict[str, Any], after: bytes) -> Answer:
    """As `broken`, of a short answer: once more where the engine was through before it was killed."""
    for _ in range(20):
        cut = await broken(stable, path, body, after, 3)
        if b"corral.resumed" in cut.body or b"corral_resumed" in cut.body:
            return cut
    raise AssertionError("every answer was whole before its engine could be killed")


async def test_messages_go_on(demo: Stable) -> None:
    """In Anthropic's events, too: the message that began is the one that ends, with all of its tokens."""
    body = {**TALK, "max_tokens": LONG, "temperature": 0}
    whole = await ask(demo.address, "POST", "/v1/messages", body)
    cut = await resumed(demo, "/v1/messages", body, b"\n\n")

    def read(answer: Answer) -> tuple[list[str], str, Any]:
        events = [json.loads(data) for data in answer.events]
        kinds = [event["type"] for event in events if event["type"] != "content_block_delta"]
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        return kinds, text, next(event["usage"] for event in events if event["type"] == "message_delta")

    assert read(cut)[:2] == read(whole)[:2]
    assert read(cut)[2]["output_tokens"] == read(whole)[2]["output_tokens"]


async def test_ollamas_lines_go_on(demo: Stable) -> None:
    """The line after the break says so, and the last one counts all of the answer."""
    body = {**TALK, "options": {"num_predict": LONG, "temperature": 0}}
    whole = await ask(demo.address, "POST", "/api/chat", body)
    cut = await resumed(demo, "/api/chat", body, b"\n")

    def read(answer: Answer) -> tuple[str, str, int, int]:
        lines = [json.loads(line) for line in answer.body.splitlines()]
        last = lines[-1]
        text = "".join(line["message"]["content"] for line in lines)
        return text, last["done_reason"], last["eval_count"], last["prompt_eval_count"]

    assert read(cut) == read(whole)
    assert cut.body.count(b'{"corral_resumed":true,') == 1


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"response_format": {"type": "json_object"}},
        {"grammar": "root ::= [a-z ]+"},
        {"logprobs": True},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_what_cannot_go_on_ends_with_an_error_event(demo: Stable, more: dict[str, Any]) -> None:
    """Tools, a grammar, and what else the text does not show: the client keeps what it has, and is told."""
    cut = await broken(demo, CHAT, asking(**more), times=4)
    assert json.loads(cut.events[-1])["error"]["code"] == "engine_gone"
    assert b"corral.resumed" not in cut.body
    assert demo.units_by_name["demo"].generation == 1


async def test_it_can_be_switched_off(demo: Stable) -> None:
    """`resume: false`."""
    demo.change(resume=False)
    cut = await broken(demo, CHAT, asking())
    assert json.loads(cut.events[-1])["error"]["code"] == "engine_gone"


async def test_an_answer_can_break_more_than_once(demo: Stable) -> None:
    """Each time by somebody else's doing: it still ends as if nothing had been."""
    whole = await ask(demo.address, "POST", CHAT, asking())
    unit = demo.units_by_name["demo"]
    async with connected(demo.address) as wire:
        wire.request("POST", CHAT, asking())
        await wire.start()
        got = b""
        for breaks in range(2):
            while got.count(b"corral.resumed") < breaks or got.rpartition(b"corral.resumed")[2].count(b"\n\n") < 8:
                piece = await wire.piece()
                assert piece
                got += piece
            assert unit.process is not None
            unit.process.kill()
            unit.process.wait()
        rest = await wire.rest()
    cut = Answer(rest.status, rest.headers, got + rest.body, rest.broken)
    assert cut.body.count(b": corral.resumed") == 2
    assert said(cut)[:SURE] == said(whole)[:SURE]
    assert chunks(cut)[-1]["timings"]["predicted_n"] == LONG


async def test_a_request_that_kills_engines_is_not_resumed_for_ever(stable: Stable) -> None:
    """One more try, then it is told; what came stays."""
    unit = stable.add("m", ["--die-after-chunks", "2", "--chunks", "9"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, asking(model="m"))
    assert json.loads(answer.events[-1])["error"]["code"] == "engine_gone"
    assert unit.generation == 2
    assert stable.held == 0


async def test_an_engine_that_does_not_go_on_ends_it(stable: Stable) -> None:
    """Its own error is none of the stream's: the client hears that the answer is not whole."""
    stable.add("m", ["--die-after-chunks", "2", "--chunks", "9"], ["--answer-status", "400"])
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, asking(model="m"))
    error = json.loads(answer.events[-1])["error"]
    assert (error["code"], "did not go on" in error["message"]) == ("engine_gone", True)
