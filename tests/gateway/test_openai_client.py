"""openai-python as a client, and llama.cpp itself as the engine."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import openai
import pytest

from corral.engines import embedded_host
from corral.errors import QueueFull
from gateway.stable import Stable
from gateway.wire import ask, connected, until
from support.ggufs import chain_text, write_bert, write_chain, write_random

WORDS = ("Corral", "keeps", "models", "in", "good", "order")
CHAT = "/v1/chat/completions"


def add_llama(
    stable: Stable,
    name: str,
    model: Path,
    *flags: str,
    slots: int = 4,
    aliases: tuple[str, ...] = (),
    parallel: int = 1,
) -> None:
    argv = (sys.executable, "-I", str(embedded_host.__file__), "--model", str(model), "--alias", name, *flags)
    stable.add_engine(name, argv, listen="--host", slots=slots, aliases=aliases, source=model, parallel=parallel)


@pytest.fixture
async def chain(stable: Stable, short_tmp: Path) -> Stable:
    """A real llama.cpp that answers everything with the same six words, with four slots."""
    model = write_chain(short_tmp / "chain.gguf", WORDS)
    add_llama(stable, "org/chain:f16", model, "--parallel", "4", "-c", "4096", "-t", "1", aliases=("chain",))
    await stable.open()
    return stable


def url(stable: Stable) -> str:
    return f"http://{stable.address}/v1"


def user(text: str = "hi") -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_the_async_client_gets_answers_and_streams(chain: Stable) -> None:
    """A whole answer, a stream with usage, and text completions: by name and by alias."""
    async with openai.AsyncOpenAI(base_url=url(chain), api_key="none", max_retries=0) as client:
        for name in ("org/chain:f16", "chain"):
            answer = await client.chat.completions.create(model=name, messages=user())
            assert answer.choices[0].message.content == chain_text(WORDS)
            assert answer.model == "org/chain:f16"
        text, usage = "", None
        async for chunk in await client.chat.completions.create(
            model="chain", messages=user(), stream=True, stream_options={"include_usage": True}
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        assert text == chain_text(WORDS)
        assert usage is not None
        assert usage.completion_tokens >= len(WORDS)
        completion = await client.completions.create(model="chain", prompt="x", max_tokens=3)
        assert completion.choices[0].text == chain_text(WORDS[:3])
        raw = await client.chat.completions.with_raw_response.create(model="chain", messages=user())
        assert raw.headers["x-corral-unit"] == "org/chain:f16.1"


async def test_the_sync_client_gets_answers_and_streams(chain: Stable) -> None:
    """The same from threads with blocking sockets."""

    def talk() -> tuple[str | None, str, list[str], str]:
        with openai.OpenAI(base_url=url(chain), api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model="chain", messages=user()).choices[0].message.content
            stream = client.chat.completions.create(model="chain", messages=user(), stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            names = [model.id for model in client.models.list()]
            return whole, text, names, client.models.retrieve("org/chain:f16").owned_by

    whole, text, names, owner = await asyncio.to_thread(talk)
    assert whole == text == chain_text(WORDS)
    assert names == ["org/chain:f16", "chain"]
    assert owner == "corral"


async def test_the_clients_errors_are_openais(chain: Stable) -> None:
    """What goes wrong arrives as the library's own exceptions, with our code and hint in the body."""
    async with openai.AsyncOpenAI(base_url=url(chain), api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="chian", messages=user())
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        assert "did you mean 'chain'" in unknown.value.body["hint"]  # type: ignore[index]
        chain.lease_error = QueueFull("full", hint="wait", queue_position=7, retry_after_s=1)
        with pytest.raises(openai.InternalServerError) as full:
            await client.chat.completions.create(model="chain", messages=user())
        assert full.value.status_code == 503
        assert full.value.response.headers["retry-after"] == "1"


async def test_a_broken_stream_raises_in_the_client(stable: Stable) -> None:
    """openai-python turns the error event into an exception: nobody takes half an answer for a whole one."""
    stable.add("m", ["--die-after-chunks", "2", "--chunks", "9"])
    stable.change(resume=False)
    await stable.open()
    async with openai.AsyncOpenAI(base_url=url(stable), api_key="none", max_retries=0) as client:
        text = ""
        with pytest.raises(openai.APIError, match="ended before its answer did"):
            async for chunk in await client.chat.completions.create(model="m", messages=user(), stream=True):
                text += chunk.choices[0].delta.content or ""
        assert text == "w0 w1 "


async def test_embeddings_and_reranking_work(stable: Stable, short_tmp: Path) -> None:
    """A real BERT embeds for openai-python, and another ranks documents on every one of the rerank paths."""
    add_llama(stable, "bert", write_bert(short_tmp / "bert.gguf"), "--embedding", "-t", "1")
    add_llama(stable, "judge", write_bert(short_tmp / "judge.gguf", rank=True), "--reranking", "-t", "1")
    await stable.open()
    async with openai.AsyncOpenAI(base_url=url(stable), api_key="none", max_retries=0) as client:
        answer = await client.embeddings.create(model="bert", input=["one", "two"])
        assert [each.index for each in answer.data] == [0, 1]
        assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 1
        assert any(answer.data[0].embedding)
    body = {"model": "judge", "query": "llama", "documents": ["stone", "llama llama"]}
    for path in ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking"):
        ranked = (await ask(stable.address, "POST", path, body)).json["results"]
        scores = {each["index"]: each["relevance_score"] for each in ranked}
        assert scores[1] > scores[0]


async def test_llama_cpps_own_routes_work(chain: Stable) -> None:
    """/tokenize, /detokenize and /apply-template, and the rest of the engine below /upstream."""
    tokens = (await ask(chain.address, "POST", "/tokenize", {"content": "Corral", "model": "chain"})).json["tokens"]
    back = await ask(chain.address, "POST", "/detokenize", {"model": "chain", "tokens": tokens})
    assert back.json["content"] == "Corral"
    body = {"model": "chain", "messages": [{"role": "user", "content": "hi"}]}
    shown = await ask(chain.address, "POST", "/apply-template", body)
    assert "hi" in shown.json["prompt"]
    slots = await ask(chain.address, "GET", "/upstream/org/chain:f16/props")
    assert slots.json["total_slots"] == 4


async def test_many_streams_on_a_real_engine(chain: Stable) -> None:
    """64 streams on four slots: each whole, each with the right words, none cut, for all llama.cpp's short backlog."""
    body = {"model": "chain", "messages": user(), "stream": True}
    answers = await asyncio.gather(*(ask(chain.address, "POST", CHAT, body) for _ in range(64)))
    for answer in answers:
        assert answer.events[-1] == "[DONE]"
        deltas = [json.loads(data)["choices"] for data in answer.events[:-1]]
        assert "".join(each[0]["delta"].get("content") or "" for each in deltas if each) == chain_text(WORDS)
    assert chain.granted == 64


async def test_leaving_stops_a_real_engine(stable: Stable, short_tmp: Path) -> None:
    """A client that leaves midway frees the slot: the only one answers the next request at once."""
    model = write_random(short_tmp / "random.gguf", context=32768)
    add_llama(stable, "r", model, "--parallel", "1", "-c", "32768", "-t", "1", slots=1)
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, {"model": "r", "messages": user(), "stream": True, "max_tokens": 30000})
        await wire.start()
        assert await wire.piece()
        wire.drop()
    await until(lambda: stable.held == 0, "released")

    async def idle() -> bool:
        slots = (await ask(stable.address, "GET", "/upstream/r/slots")).json
        return not any(slot["is_processing"] for slot in slots)

    await until(idle, "the engine stopped working on it")
    answer = await ask(stable.address, "POST", CHAT, {"model": "r", "messages": user(), "max_tokens": 2})
    assert answer.status == 200
