"""Many clients at once, on real engines whose answers are known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server

A = ["one", "two", "three", "four", "five"]
B = ["red", "green", "blue"]


@pytest.fixture
def two_models(paths: Paths, short_tmp: Path) -> str:
    write_chain(short_tmp / "a.gguf", A)
    write_chain(short_tmp / "b.gguf", B)
    return f"""
        max_active: 1
        models:
          - {{name: a, source: {short_tmp}/a.gguf, executable: embedded, parallel: 4, context: 256}}
          - {{name: b, source: {short_tmp}/b.gguf, executable: embedded, context: 256}}
    """


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


async def ask(client: openai.AsyncOpenAI, model: str) -> str:
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], stream=True, temperature=0, max_tokens=50
    )
    said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return "".join(said)


async def test_64_streams_to_one_model(paths: Paths, two_models: str) -> None:
    """64 streams at once to one cold model share one start, and each gets the whole text."""
    with Server(paths, two_models) as server:
        async with client_of(server) as client:
            answers = await asyncio.gather(*(ask(client, "a") for _ in range(64)))
        assert set(answers) == {" ".join(A)}
        assert [state for _, state in server.states("a")] == ["starting", "loading", "ready"]


async def test_8_clients_alternating(paths: Paths, two_models: str) -> None:
    """8 clients that alternate between two models under max_active 1: every request is answered, none cut, and no
    two units are resident at once."""
    with Server(paths, two_models) as server:
        async with client_of(server) as client:

            async def alternate(first: int) -> list[str]:
                return [await ask(client, "ab"[(first + turn) % 2]) for turn in range(4)]

            answers = await asyncio.gather(*(alternate(number) for number in range(8)))
        for first, said in enumerate(answers):
            assert said == [" ".join((A, B)[(first + turn) % 2]) for turn in range(4)]
        resident: set[str] = set()
        swaps = 0
        for event in server.client.events():
            if event.kind != "unit.state":
                continue
            if event.data["after"] == "starting":
                assert not resident, f"{event.unit} started beside {resident}"
                resident.add(str(event.unit))
                swaps += 1
            elif event.data["after"] in ("stopped", "backoff", "failed"):
                resident.discard(str(event.unit))
        assert 2 <= swaps <= 32
