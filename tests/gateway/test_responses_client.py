"""OpenAI's responses with openai-python as a client, and llama.cpp itself as the engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from support.ggufs import THINKING_TEMPLATE, TOOLS_TEMPLATE, chain_text, write_chain

WORDS = ("Corral", "keeps", "models", "in", "good", "order")
CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
THOUGHT = ("<think>", "Let", "me", "see.", "</think>", "Four.")
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: Any = {
    "type": "function",
    "name": "clock",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"enum": ["utc"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}


@pytest.fixture
async def served(stable: Stable, short_tmp: Path) -> Stable:
    """Three models: one that says words, one that calls a tool, one that thinks."""
    flags = ("-c", "4096", "-t", "1")
    add_llama(stable, "chain", write_chain(short_tmp / "chain.gguf", WORDS), *flags)
    add_llama(stable, "caller", write_chain(short_tmp / "caller.gguf", CALL, template=TOOLS_TEMPLATE), *flags)
    add_llama(stable, "thinker", write_chain(short_tmp / "t.gguf", THOUGHT, template=THINKING_TEMPLATE), *flags)
    await stable.open()
    return stable


@pytest.fixture
async def client(served: Stable) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"http://{served.address}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_a_response(client: openai.AsyncOpenAI) -> None:
    """Text and its usage; what was asked for is repeated; an answer that was cut says so."""
    response = await client.responses.create(model="chain", input="hi", instructions="Be brief.", metadata={"a": "b"})
    assert response.output_text == chain_text(WORDS)
    assert (response.status, response.model, response.instructions) == ("completed", "chain", "Be brief.")
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert response.usage.output_tokens >= len(WORDS)
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    cut = await client.responses.create(model="chain", input="hi", max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.output_text == chain_text(WORDS[:2])


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    """The whole sequence of events, numbered, and the same response at its end."""
    kinds, numbers, text = [], [], ""
    async with client.responses.stream(model="chain", input="hi") as stream:
        async for event in stream:
            kinds.append(event.type)
            numbers.append(event.sequence_number)
            text += event.delta if event.type == "response.output_text.delta" else ""
        final = await stream.get_final_response()
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert numbers == list(range(len(kinds)))
    assert deltas == len(WORDS)
    assert text == final.output_text == chain_text(WORDS)
    assert final.usage is not None
    assert final.usage.output_tokens >= len(WORDS)


async def test_calls(client: openai.AsyncOpenAI) -> None:
    """A function call is an item, whole and streamed; its output goes back with the response before it."""
    response = await client.responses.create(model="caller", input="hi", tools=[TOOL])
    (call,) = response.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
    pieces, kinds = "", []
    async with client.responses.stream(model="caller", input="hi", tools=[TOOL]) as stream:
        async for event in stream:
            kinds.append(event.type)
            pieces += event.delta if event.type == "response.function_call_arguments.delta" else ""
    assert json.loads(pieces) == {"city": "Rome"}
    assert kinds[2] == "response.output_item.added"
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = await client.responses.create(
        model="caller", input=[output], tools=[TOOL], previous_response_id=response.id
    )
    alone = await client.responses.create(model="caller", input="hi", tools=[TOOL])
    assert after.usage is not None
    assert alone.usage is not None
    assert after.usage.input_tokens > alone.usage.input_tokens + 20  # the call and its output were shown
    for model in ("caller", "chain"):
        forced = await client.responses.create(
            model=model, input="hi", tools=[TOOL, CLOCK], tool_choice={"type": "function", "name": "clock"},
            max_output_tokens=200,
        )  # fmt: skip
        assert forced.output[0].type == "function_call"
        assert (forced.output[0].name, json.loads(forced.output[0].arguments)) == ("clock", {"zone": "utc"})


async def test_thoughts(client: openai.AsyncOpenAI) -> None:
    """Thoughts are an item of their own before the text, whole and streamed."""
    response = await client.responses.create(model="thinker", input="hi", reasoning={"effort": "high"})
    thought, said = response.output
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert thought.content[0].text.split() == ["Let", "me", "see."]
    assert said.type == "message"
    assert response.output_text == "Four."
    assert response.usage is not None
    assert 0 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens
    kinds = []
    async with client.responses.stream(model="thinker", input="hi") as stream:
        async for event in stream:
            kinds.append(event.type)
        final = await stream.get_final_response()
    assert "response.reasoning_text.delta" in kinds
    assert kinds.index("response.reasoning_text.done") < kinds.index("response.output_text.delta")
    assert [item.type for item in final.output] == ["reasoning", "message"]


async def test_json_schemas(client: openai.AsyncOpenAI) -> None:
    """The text keeps to the schema that `text.format` has."""
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    response = await client.responses.create(model="chain", input="hi", text=form, max_output_tokens=100)
    assert json.loads(response.output_text) == {"a": "x"}


async def test_conversations_go_on(client: openai.AsyncOpenAI) -> None:
    """What was said before is shown again, over several responses; instructions are not carried over."""
    first = await client.responses.create(model="chain", input="one", instructions="Speak.")
    second = await client.responses.create(model="chain", input="two", previous_response_id=first.id)
    third = await client.responses.create(model="chain", input="three", previous_response_id=second.id)
    whole: Any = []
    for asked in ("one", "two"):
        whole += [{"role": "user", "content": asked}, {"role": "assistant", "content": chain_text(WORDS)}]
    same = await client.responses.create(model="chain", input=[*whole, {"role": "user", "content": "three"}])
    assert third.usage is not None
    assert same.usage is not None
    assert third.usage.input_tokens == same.usage.input_tokens
    await client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        await client.responses.create(model="chain", input="four", previous_response_id=third.id)


async def test_what_is_kept(client: openai.AsyncOpenAI) -> None:
    """A response is shown again as it was, with its input, until it is deleted; unless it was not to be kept."""
    asked: Any = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    made = await client.responses.create(model="chain", input=asked)
    assert await client.responses.retrieve(made.id) == made
    items: list[Any] = [item async for item in client.responses.input_items.list(made.id, order="asc", limit=1)]
    assert [item.content[0].text for item in items] == ["a", "b"]
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    unkept = await client.responses.create(model="chain", input="hi", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(unkept.id)
    async with client.responses.stream(model="chain", input="hi") as stream:
        streamed = await stream.get_final_response()
    assert (await client.responses.retrieve(streamed.id)).output_text == chain_text(WORDS)


async def test_counting(client: openai.AsyncOpenAI) -> None:
    """The tokens of a request are counted without an answer."""
    counted = await client.responses.input_tokens.count(model="chain", input="hi")
    response = await client.responses.create(model="chain", input="hi")
    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens


async def test_what_cannot_be(client: openai.AsyncOpenAI) -> None:
    """What is not offered is refused in words, not passed over."""
    with pytest.raises(openai.APIStatusError, match="tools of the type 'web_search'") as tools:
        await client.responses.create(model="chain", input="hi", tools=[{"type": "web_search"}])
    assert tools.value.code == "not_offered"
    with pytest.raises(openai.APIStatusError, match="background"):
        await client.responses.create(model="chain", input="hi", background=True)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        await client.responses.create(model="chain", input="hi", previous_response_id="resp_nothing")
    with pytest.raises(openai.BadRequestError, match=r"input\[0\].content\[0\].type"):
        part: Any = {"type": "input_file", "file_id": "file-1"}
        await client.responses.create(model="chain", input=[{"role": "user", "content": [part]}])
    made = await client.responses.create(model="chain", input="hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(made.id)
    with pytest.raises(openai.APIStatusError, match="not compacted"):
        await client.post("/responses/compact", cast_to=object, body={"model": "chain"})


async def test_a_broken_stream_says_so(stable: Stable) -> None:
    """An engine that dies midway is an event of the type error, and no response is kept."""
    stable.add("m", ["--die-after-chunks", "2", "--chunks", "9"])
    await stable.open()
    async with openai.AsyncOpenAI(base_url=f"http://{stable.address}/v1", api_key="x", max_retries=0) as client:
        events = [event async for event in await client.responses.create(model="m", input="hi", stream=True)]
        assert events[0].type == "response.created"
        assert events[-1].type == "error"
        assert "ended before its answer did" in events[-1].message
        assert events[-1].code == "engine_gone"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(events[0].response.id)


async def test_what_cannot_be_kept_is_answered(served: Stable, client: openai.AsyncOpenAI) -> None:
    """A disk that takes nothing costs the conversation, not the answer; whoever goes on from it is told."""
    (Path(served.status().state_dir) / "responses.sqlite").mkdir()
    response = await client.responses.create(model="chain", input="hi")
    assert response.output_text == chain_text(WORDS)
    events = [event.type async for event in await client.responses.create(model="chain", input="hi", stream=True)]
    assert events[-1] == "response.completed"
    with pytest.raises(openai.APIStatusError):
        await client.responses.create(model="chain", input="more", previous_response_id=response.id)
