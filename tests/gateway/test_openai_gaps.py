"""What OpenAI's clients may ask beyond plain chats, with openai-python on real engines: done, or refused in words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from corral.demo.where import demo_model
from corral.gateway.dialects.openai_table import REFUSED
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import ask, until
from support.ggufs import TOOLS_TEMPLATE, chain_text, write_chain

WORDS = ("Corral", "keeps", "models", "in", "good", "order")
CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
TEXT = chain_text(WORDS)
HI: Any = [{"role": "user", "content": "hi"}]


def tool(name: str, value: str) -> Any:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [value]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("one", "x"), tool("two", "y")]


@pytest.fixture
async def served(stable: Stable, short_tmp: Path) -> Stable:
    """Models whose template knows no tools, `pair` with two slots, and `caller`, whose does."""
    add_llama(stable, "chain", write_chain(short_tmp / "c.gguf", WORDS), "-c", "4096", "-t", "1", "--parallel", "1")
    add_llama(stable, "demo", Path(str(demo_model())), "-c", "2048", "-t", "1", "--parallel", "1")
    endless = write_chain(short_tmp / "endless.gguf", WORDS, loop=True, mib=24)
    add_llama(stable, "endless", endless, "-c", "4096", "-t", "1", "--parallel", "1", slots=1)
    pair = write_chain(short_tmp / "pair.gguf", WORDS)
    add_llama(stable, "pair", pair, "-c", "4096", "-t", "1", "--parallel", "2", parallel=2)
    caller = write_chain(short_tmp / "caller.gguf", CALL, template=TOOLS_TEMPLATE)
    add_llama(stable, "caller", caller, "-c", "4096", "-t", "1")
    await stable.open()
    return stable


@pytest.fixture
async def client(served: Stable) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"http://{served.address}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_tool_choice_is_enforced(client: openai.AsyncOpenAI) -> None:
    """A named function, any function, and allowed ones are called by every model; `none` calls nothing."""
    wanted: list[tuple[Any, set[str]]] = [
        ({"type": "function", "function": {"name": "two"}}, {"two"}),
        ("required", {"one", "two"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}}, {"two"}),
    ]
    for model in ("chain", "caller"):
        for choice, names in wanted:
            answer = await client.chat.completions.create(
                model=model, messages=HI, tools=TOOLS, tool_choice=choice, max_tokens=200
            )
            calls: Any = answer.choices[0].message.tool_calls
            assert calls[0].function.name in names
            assert json.loads(calls[0].function.arguments)["a"] in ("x", "y")
    named: Any = wanted[0][0]
    pieces = ""
    finish = None
    async for chunk in await client.chat.completions.create(
        model="chain", messages=HI, tools=TOOLS, tool_choice=named, max_tokens=200, stream=True
    ):
        delta = chunk.choices[0].delta if chunk.choices else None
        assert delta is None or not delta.content
        for call in (delta.tool_calls or []) if delta else []:
            pieces += (call.function.arguments or "") if call.function else ""
        finish = (chunk.choices[0].finish_reason if chunk.choices else None) or finish
    assert json.loads(pieces) == {"a": "y"}
    assert finish == "tool_calls"
    answer = await client.chat.completions.create(model="caller", messages=HI, tools=TOOLS, tool_choice="none")
    assert not answer.choices[0].message.tool_calls
    with pytest.raises(openai.BadRequestError, match="'three', which is not among the tools") as unknown:
        three: Any = {"type": "function", "function": {"name": "three"}}
        await client.chat.completions.create(model="chain", messages=HI, tools=TOOLS, tool_choice=three)
    assert unknown.value.param == "tool_choice"
    with pytest.raises(openai.BadRequestError, match="without tools"):
        await client.chat.completions.create(model="chain", messages=HI, tool_choice="required")


async def test_tools_that_may_be_called_are_left_to_the_engine(client: openai.AsyncOpenAI) -> None:
    """With `auto` the model decides, and the answer is the engine's own."""
    weather: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = await client.chat.completions.create(model="caller", messages=HI, tools=weather, tool_choice="auto")
    calls: Any = answer.choices[0].message.tool_calls
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Rome"})


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    """Each token with its probability and the next likely ones, whole and streamed."""
    answer = await client.chat.completions.create(model="chain", messages=HI, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(each.token for each in logprobs.content).strip() == chain_text(WORDS)
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in logprobs.content)
    streamed = 0
    async for chunk in await client.chat.completions.create(
        model="chain", messages=HI, logprobs=True, top_logprobs=1, stream=True
    ):
        found = chunk.choices[0].logprobs if chunk.choices else None
        streamed += len(found.content or []) if found else 0
    assert streamed >= len(WORDS)


async def test_several_answers_at_once(client: openai.AsyncOpenAI, served: Stable, short_tmp: Path) -> None:
    """`n` up to the model's slots is the engine's own affair."""
    answer = await client.chat.completions.create(model="pair", messages=HI, n=2)
    assert [(each.index, each.message.content) for each in answer.choices] == [(0, TEXT), (1, TEXT)]
    assert served.granted == 1


async def test_several_answers_in_turn(client: openai.AsyncOpenAI, served: Stable) -> None:
    """With fewer slots they are made one after the other, and are one answer: choices, counts, fields."""
    one = await client.chat.completions.create(model="chain", messages=HI, n=1)
    raw = await client.chat.completions.with_raw_response.create(model="chain", messages=HI, n=3)
    answer = raw.parse()
    assert [(each.index, each.message.content, each.finish_reason) for each in answer.choices] == [
        (index, TEXT, "stop") for index in range(3)
    ]
    assert one.usage is not None and answer.usage is not None
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (raw.headers["x-corral-model"], served.granted, served.held) == ("chain", 4, 0)
    calls = await client.chat.completions.create(
        model="chain", messages=HI, n=2, tools=TOOLS, tool_choice="required", max_tokens=200, temperature=0
    )
    functions: Any = [each.message.tool_calls for each in calls.choices]
    assert [each[0].function.name in ("one", "two") for each in functions] == [True, True]
    assert functions[0][0].id != functions[1][0].id


@pytest.mark.parametrize("tells", [False, True])
async def test_several_answers_in_a_stream(client: openai.AsyncOpenAI, served: Stable, tells: bool) -> None:
    """Chunks of one answer after the other, with one id, and one sum of what they took where that is asked for."""
    one = await client.chat.completions.create(model="chain", messages=HI)
    options: Any = {"stream_options": {"include_usage": True}} if tells else {}
    stream = await client.chat.completions.create(model="chain", messages=HI, n=2, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    texts, ends = {0: "", 1: ""}, []
    for choice in (each for chunk in chunks for each in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
        ends += [(choice.index, choice.finish_reason)] if choice.finish_reason else []
    assert texts == {0: TEXT, 1: TEXT}
    assert ends == [(0, "stop"), (1, "stop")]
    assert len({chunk.id for chunk in chunks}) == 1
    counted = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [(each.prompt_tokens, each.completion_tokens) for each in counted] == [
        (one.usage.prompt_tokens, 2 * one.usage.completion_tokens) for _ in range(tells) if one.usage is not None
    ]


async def test_several_answers_have_seeds_of_their_own(client: openai.AsyncOpenAI) -> None:
    """With a seed the answers differ, and are the same the next time."""
    hot = {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "temperature": 5.0}
    ask: Any = {"model": "demo", "messages": HI, "n": 3, "seed": 7, "max_tokens": 12, "extra_body": hot}
    first, second = [
        [each.message.content for each in (await client.chat.completions.create(**ask)).choices] for _ in range(2)
    ]
    assert len(set(first)) == 3
    assert first == second


async def test_several_answers_that_go_wrong(client: openai.AsyncOpenAI, served: Stable) -> None:
    """Too many of them are refused, and what the engine refuses is its own words, streamed or not."""
    with pytest.raises(openai.BadRequestError, match="128 answers are the most") as many:
        await client.chat.completions.create(model="chain", messages=HI, n=129)
    assert many.value.param == "n"
    long: Any = [{"role": "user", "content": "x" * 9000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="exceeds the available context"):
            await client.chat.completions.create(model="chain", messages=long, n=2, stream=stream)
    assert served.held == 0


async def test_who_leaves_in_the_middle_of_several_answers(client: openai.AsyncOpenAI, served: Stable) -> None:
    """The slot is free, and the answers that were to come are not made."""
    stream = await client.chat.completions.create(
        model="endless", messages=HI, n=3, max_tokens=3000, stream=True, timeout=30
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    await until(lambda: served.held == 0, "the slot to be free")
    short = await client.chat.completions.create(model="endless", messages=HI, max_tokens=2)
    assert short.choices[0].message.content == chain_text(WORDS[:2])
    assert served.granted == 2


async def test_several_answers_survive_their_engines_death(stable: Stable) -> None:
    """Each is tried again as any request, even when events of another went out already."""
    unit = stable.add("m", ["--first-byte-s", "0.3"])
    await stable.open()
    async with openai.AsyncOpenAI(base_url=f"http://{stable.address}/v1", api_key="none", max_retries=0) as client:
        texts = {0: "", 1: ""}
        async for chunk in await client.chat.completions.create(model="m", messages=HI, n=2, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason and choice.index == 0:
                    assert unit.process is not None
                    unit.process.kill()
    assert texts[0] == texts[1] != ""
    assert unit.generation == 2


async def test_stream_options(client: openai.AsyncOpenAI) -> None:
    """Usage comes in a last chunk of its own when it is asked for, and not otherwise."""
    for wanted in (True, False):
        options: Any = {"include_usage": wanted}
        stream = await client.chat.completions.create(model="chain", messages=HI, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert (chunks[-1].usage is not None and not chunks[-1].choices) is wanted


async def test_response_format(client: openai.AsyncOpenAI) -> None:
    """The text keeps to a schema."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": TOOLS[0]["function"]["parameters"]}}
    answer = await client.chat.completions.create(model="chain", messages=HI, response_format=form, max_tokens=100)
    assert json.loads(answer.choices[0].message.content or "") == {"a": "x"}


async def test_num_ctx_says_what_there_is(client: openai.AsyncOpenAI) -> None:
    """The extension is taken, changes nothing, and the answer says so."""
    for stream in (False, True):
        raw = await client.chat.completions.with_raw_response.create(
            model="chain", messages=HI, extra_body={"num_ctx": 8192}, stream=stream
        )
        assert raw.headers["x-corral-num-ctx"].startswith("asked=8192")
    with pytest.raises(openai.BadRequestError, match="num_ctx"):
        await client.chat.completions.create(model="chain", messages=HI, extra_body={"num_ctx": "much"})


async def test_transcriptions_reach_the_engine(client: openai.AsyncOpenAI, served: Stable) -> None:
    """The form goes to the model that it names; an engine without ears says so itself."""
    with pytest.raises(openai.APIStatusError, match="does not support audio input") as deaf:
        await client.audio.transcriptions.create(model="chain", file=("a.wav", b"RIFF0000WAVE"))
    assert deaf.value.status_code == 501
    assert deaf.value.response.headers["x-corral-model"] == "chain"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        await client.audio.transcriptions.create(model="nobody", file=("a.wav", b"RIFF0000WAVE"))


async def test_what_is_not_offered_says_so(client: openai.AsyncOpenAI, served: Stable) -> None:
    """Routes that Corral does not have answer with a reason and a hint, in OpenAI's shape."""
    for row in REFUSED:
        method = "POST" if row.method == "*" else row.method
        answer = await ask(served.address, method, row.path.replace("{id}", "x"), {})
        assert (answer.status, answer.json["error"]["code"]) == (501, "not_offered"), row.path
        assert answer.json["error"]["hint"] == row.words
    with pytest.raises(openai.APIStatusError, match="not offered"):
        await client.files.create(file=b"x", purpose="batch")
    with pytest.raises(openai.APIStatusError, match="not offered"):
        await client.images.generate(prompt="a cow")
