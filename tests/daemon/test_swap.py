"""Swaps through the whole server: what is done for the next model while the last one still runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from corral.config.paths import Paths
from corral.supervisor.logs import log_file
from support.engines import until
from support.ggufs import write_chain, write_random
from support.server import Server

WORDS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for all of them: `a` answers for long, and each has another that waits for it."""
    place = module_paths.state_dir.parent
    write_random(place / "a.gguf", context=65536)
    write_chain(place / "b.gguf", WORDS)
    config = f"""
        max_active: 1
        models:
          - {{name: a, source: {place}/a.gguf, executable: embedded, context: 65536}}
          - {{name: b, source: {place}/b.gguf, executable: embedded, context: 256}}
          - {{name: c, source: {place}/b.gguf, executable: embedded, context: 256}}
    """
    with Server(module_paths, config) as started:
        yield started


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


async def ask(client: openai.AsyncOpenAI, model: str) -> str:
    said = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=50
    )
    return said.choices[0].message.content or ""


async def test_the_next_start_is_prepared(server: Server) -> None:
    """While a model answers, a request for another has that one's start prepared; when its client goes nothing of it
    is left, and a later request is served as ever."""
    async with client_of(server) as client:
        stream = await client.chat.completions.create(
            model="a", messages=[{"role": "user", "content": "go"}], stream=True, max_tokens=60000
        )
        await anext(aiter(stream))
        prepared = log_file(server.paths, "b", 1)
        waiting = asyncio.create_task(ask(client, "b"))
        await until(prepared.exists, "the start of b to be prepared")
        assert server.states("b") == []
        assert server.states("a")[-1][1] == "ready"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: not prepared.exists(), "nothing of it to be left")
        await stream.close()
        assert await ask(client, "b") == " ".join(WORDS)
        assert prepared.exists()


async def test_stop_of_a_model_that_only_waits(server: Server) -> None:
    """`stop` of a model that waits for room refuses those who wait, says how many, and starts nothing."""
    async with client_of(server) as client:
        stream = await client.chat.completions.create(
            model="a", messages=[{"role": "user", "content": "go"}], stream=True, max_tokens=60000
        )
        await anext(aiter(stream))
        waiting = asyncio.create_task(ask(client, "c"))
        await until(lambda: server.client.status().waiting == 1, "the request to wait")
        stopped = await asyncio.to_thread(server.client.stop, "c")
        assert stopped.changed and "1 request that waited for it was refused" in stopped.text
        with pytest.raises(openai.InternalServerError) as caught:
            await waiting
        assert caught.value.status_code == 503 and "corral stop" in str(caught.value)
        again = await asyncio.to_thread(server.client.stop, "c")
        assert not again.changed and again.text == "c does not run"
        assert server.states("c") == [] and server.states("a")[-1][1] == "ready"
        await stream.close()
