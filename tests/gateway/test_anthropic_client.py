"""The anthropic library as a client, and llama.cpp itself as the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from corral.errors import QueueFull
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from support.ggufs import THINKING_TEMPLATE, TOOLS_TEMPLATE, chain_text, write_chain

WORDS = ("Corral", "keeps", "models", "in", "good", "order")
CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
THOUGHT = ("<think>", "Let", "me", "see.", "</think>", "Four.")
TOOL: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def served(stable: Stable, short_tmp: Path) -> Stable:
    """Three models: one that says words, one that calls a tool, one that thinks."""
    flags = ("-c", "4096", "-t", "1")
    add_llama(stable, "chain", write_chain(short_tmp / "chain.gguf", WORDS), *flags, aliases=("claude-x",))
    caller = write_chain(short_tmp / "caller.gguf", CALL, template=TOOLS_TEMPLATE)
    add_llama(stable, "caller", caller, *flags)
    add_llama(stable, "thinker", write_chain(short_tmp / "t.gguf", THOUGHT, template=THINKING_TEMPLATE), *flags)
    await stable.open()
    return stable


@pytest.fixture
async def client(served: Stable) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=f"http://{served.address}", api_key="none", max_retries=0) as client:
        yield client


async def test_messages(client: anthropic.AsyncAnthropic) -> None:
    """A whole message with its usage, under the name that was asked for; a system prompt as a text and as blocks."""
    for system in ("Be brief.", [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]):
        message = await client.messages.create(
            model="claude-x",
            max_tokens=20,
            messages=HI,
            system=system,  # type: ignore[arg-type]
        )
        assert message.content[0].type == "text"
        assert message.content[0].text == chain_text(WORDS)
        assert (message.stop_reason, message.stop_sequence, message.model) == ("end_turn", None, "claude-x")
        assert message.id.startswith("msg_")
        assert message.usage.output_tokens >= len(WORDS)
        assert message.usage.input_tokens > 0
    again = await client.messages.create(model="chain", max_tokens=2, messages=HI, system="Be brief.")
    assert again.content[0].text == chain_text(WORDS[:2])  # type: ignore[union-attr]
    assert again.stop_reason == "max_tokens"
    assert again.usage.cache_read_input_tokens  # the engine had read this prompt
    assert message._request_id


async def test_streams(client: anthropic.AsyncAnthropic) -> None:
    """The events come in Anthropic's order, the first with the prompt's tokens, the last but one with the answer's."""
    kinds: list[str] = []
    async with client.messages.stream(model="chain", max_tokens=20, messages=HI) as stream:
        async for event in stream:
            kinds.append(event.type)
        message = await stream.get_final_message()
    raw = [kind for kind in kinds if kind != "text"]
    assert raw[:3] == ["message_start", "content_block_start", "content_block_delta"]  # the library hides pings
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(raw[2:-3]) == {"content_block_delta"}
    assert message.content[0].text == chain_text(WORDS)  # type: ignore[union-attr]
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens >= len(WORDS)


async def test_the_first_event_knows_the_prompt(client: anthropic.AsyncAnthropic) -> None:
    """What the prompt takes is true from the first event on, and the same as counting says."""
    counted = await client.messages.count_tokens(model="chain", messages=HI)
    stream = await client.messages.create(model="chain", max_tokens=20, messages=HI, stream=True)
    first, *_ = [event async for event in stream]
    assert first.type == "message_start"
    used = first.message.usage
    assert used.input_tokens + (used.cache_read_input_tokens or 0) == counted.input_tokens


async def test_counting(client: anthropic.AsyncAnthropic) -> None:
    """Tokens are counted by the engine, over the prompt as its template writes it, tools included."""
    plain = await client.messages.count_tokens(model="caller", messages=HI)
    message = await client.messages.create(model="caller", max_tokens=1, messages=HI)
    used = message.usage
    assert plain.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)
    tools = await client.messages.count_tokens(model="caller", messages=HI, tools=[TOOL])
    assert tools.input_tokens > plain.input_tokens + 50


async def test_stop_sequences(client: anthropic.AsyncAnthropic) -> None:
    """The one that ended the answer is named, whole and streamed."""
    message = await client.messages.create(model="chain", max_tokens=20, messages=HI, stop_sequences=["xx", "models"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "models")
    assert message.content[0].text == "Corral keeps "  # type: ignore[union-attr]
    async with client.messages.stream(model="chain", max_tokens=20, messages=HI, stop_sequences=["models"]) as stream:
        last = await stream.get_final_message()
    assert (last.stop_reason, last.stop_sequence) == ("stop_sequence", "models")


async def test_tools(client: anthropic.AsyncAnthropic) -> None:
    """A call comes as a block, whole and in pieces; its result goes back."""
    message = await client.messages.create(model="caller", max_tokens=60, messages=HI, tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = message.content
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("weather", {"city": "Rome"})
    pieces = ""
    async with client.messages.stream(model="caller", max_tokens=60, messages=HI, tools=[TOOL]) as stream:
        async for event in stream:
            if event.type == "input_json":
                pieces += event.partial_json
        last = await stream.get_final_message()
    assert pieces.replace(" ", "") == '{"city":"Rome"}'
    assert last.content[0].type == "tool_use"
    assert last.content[0].input == {"city": "Rome"}
    assert last.stop_reason == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    answered = await client.messages.create(
        model="caller",
        max_tokens=60,
        tools=[TOOL],
        messages=[*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}],
    )
    assert answered.usage.input_tokens + (answered.usage.cache_read_input_tokens or 0) > 60


async def test_a_tool_that_must_be_called(client: anthropic.AsyncAnthropic) -> None:
    """Any tool, or one by its name, is called even by a model whose template knows no tools."""
    other: Any = {"name": "clock", "input_schema": {"type": "object", "properties": {"zone": {"enum": ["utc"]}},
                                                    "required": ["zone"], "additionalProperties": False}}  # fmt: skip
    for model in ("caller", "chain"):
        message = await client.messages.create(
            model=model,
            max_tokens=200,
            messages=HI,
            tools=[TOOL, other],
            tool_choice={"type": "tool", "name": "clock", "disable_parallel_tool_use": True},
        )
        (call,) = message.content
        assert call.type == "tool_use"
        assert (call.name, call.input) == ("clock", {"zone": "utc"})
    async with client.messages.stream(
        model="chain", max_tokens=200, messages=HI, tools=[other], tool_choice={"type": "any"}
    ) as stream:
        last = await stream.get_final_message()
    assert last.content[0].type == "tool_use"
    assert last.content[0].input == {"zone": "utc"}


async def test_thinking(client: anthropic.AsyncAnthropic) -> None:
    """Thoughts are blocks of their own when they are asked for, and left out when they are not."""
    thinking: Any = {"type": "enabled", "budget_tokens": 2000}
    message = await client.messages.create(model="thinker", max_tokens=50, messages=HI, thinking=thinking)
    thought, said = message.content
    assert thought.type == "thinking"
    assert thought.thinking.split() == ["Let", "me", "see."]
    assert said.type == "text"
    assert said.text == "Four."
    raw = await client.messages.with_raw_response.create(model="thinker", max_tokens=50, messages=HI, thinking=thinking)
    assert raw.headers["x-corral-reasoning-effort"] == "low"
    kinds: list[str] = []
    async with client.messages.stream(model="thinker", max_tokens=50, messages=HI, thinking=thinking) as stream:
        async for event in stream:
            if event.type in ("content_block_start", "content_block_stop"):
                kinds.append(event.type)
            if event.type == "content_block_delta":
                kinds.append(event.delta.type)
    assert kinds[0] == "content_block_start"
    assert kinds[kinds.index("signature_delta") + 1] == "content_block_stop"
    assert kinds.count("content_block_start") == 2
    quiet = await client.messages.create(model="thinker", max_tokens=50, messages=HI)
    assert [block.type for block in quiet.content] == ["text"]
    assert quiet.content[0].text == "Four."  # type: ignore[union-attr]


async def test_a_prefilled_answer_goes_on(client: anthropic.AsyncAnthropic) -> None:
    """What the request began is not said again."""
    begun: Any = [*HI, {"role": "assistant", "content": "I say: "}]
    message = await client.messages.create(model="chain", max_tokens=20, messages=begun)
    assert message.content[0].text == chain_text(WORDS)  # type: ignore[union-attr]


async def test_errors(client: anthropic.AsyncAnthropic, served: Stable) -> None:
    """What goes wrong arrives as the library's own exceptions, with Anthropic's types and the request's id."""
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await client.messages.create(model="chian", max_tokens=9, messages=HI)
    body: Any = unknown.value.body
    assert body["error"]["type"] == "not_found_error"
    assert "did you mean 'chain'" in body["error"]["message"]
    assert body["request_id"] == unknown.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await client.messages.create(model="chain", max_tokens=0, messages=HI)
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    with pytest.raises(anthropic.BadRequestError, match="image"):
        await client.messages.create(model="chain", max_tokens=9, messages=[{"role": "user", "content": [image]}])
    served.lease_error = QueueFull("full", hint="wait", queue_position=7, retry_after_s=1)
    with pytest.raises(anthropic.InternalServerError) as full:
        await client.messages.create(model="chain", max_tokens=9, messages=HI)
    assert full.value.status_code == 529
    assert full.value.response.headers["retry-after"] == "1"


async def test_a_broken_stream_raises(stable: Stable) -> None:
    """An engine that dies midway is an error event, which the library raises."""
    stable.add("m", ["--die-after-chunks", "2", "--chunks", "9"])
    await stable.open()
    async with anthropic.AsyncAnthropic(base_url=f"http://{stable.address}", api_key="x", max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError, match="ended before its answer did"):
            async with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
                await stream.get_final_message()


async def test_models(client: anthropic.AsyncAnthropic, served: Stable) -> None:
    """The list in Anthropic's shape, in pages; at the root and under the prefix."""
    names = [model.id async for model in client.models.list(limit=2)]
    assert names == ["chain", "claude-x", "caller", "thinker"]
    assert (await client.models.retrieve("thinker")).type == "model"
    async with anthropic.AsyncAnthropic(
        base_url=f"http://{served.address}/anthropic", api_key="x", max_retries=0
    ) as prefixed:
        assert [model.id async for model in prefixed.models.list()] == names
        message = await prefixed.messages.create(model="chain", max_tokens=20, messages=HI)
        assert message.content[0].text == chain_text(WORDS)  # type: ignore[union-attr]
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await prefixed.models.retrieve("nobody")
        assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
