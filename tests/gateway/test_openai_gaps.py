"""What OpenAI's clients may ask beyond plain chats, with openai-python on real engines: done, or refused in words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from corral.gateway.dialects.openai_table import REFUSED
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import ask
from support.ggufs import TOOLS_TEMPLATE, chain_text, write_chain

WORDS = ("Corral", "keeps", "models", "in", "good", "order")
CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
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
    """One model whose template knows tools, and one whose does not."""
    add_llama(stable, "chain", write_chain(short_tmp / "c.gguf", WORDS), "-c", "4096", "-t", "1", "--parallel", "1")
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


async def test_several_answers_need_several_slots(client: openai.AsyncOpenAI, served: Stable, short_tmp: Path) -> None:
    """`n` up to the model's slots is done; beyond them it is refused with what to set."""
    with pytest.raises(openai.BadRequestError, match="n is 2, and this model's engine makes 1 answer at once") as many:
        await client.chat.completions.create(model="chain", messages=HI, n=2)
    assert many.value.param == "n"
    assert "parallel: 2" in many.value.body["hint"]  # type: ignore[index]
    one = await client.chat.completions.create(model="chain", messages=HI, n=1)
    assert len(one.choices) == 1


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
