"""Many clients at once, on real engines whose answers are known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server

A = ["one", "two", "three", "four", "five"]
B = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    place = module_paths.state_dir.parent
    write_chain(place / "a.gguf", A)
    write_chain(place / "b.gguf", B)
    config = f"""
        max_active: 1
        models:
          - {{name: cold, source: {place}/a.gguf, executable: embedded, parallel: 4, context: 256}}
          - {{name: a, source: {place}/a.gguf, executable: embedded, parallel: 4, context: 256}}
          - {{name: b, source: {place}/b.gguf, executable: embedded, context: 256}}
    """
    with Server(module_paths, config) as started:
        yield started


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


async def ask(client: openai.AsyncOpenAI, model: str) -> str:
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], stream=True, temperature=0, max_tokens=50
    )
    said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return "".join(said)


async def test_64_streams_to_one_model(server: Server) -> None:
    """64 streams at once to one cold model share one start, and each gets the whole text."""
    async with client_of(server) as client:
        answers = await asyncio.gather(*(ask(client, "cold") for _ in range(64)))
    assert set(answers) == {" ".join(A)}
    assert [state for _, state in server.states("cold")] == ["starting", "loading", "ready"]


async def test_8_clients_alternating(server: Server) -> None:
    """8 clients that alternate between two models under max_active 1: every request is answered, none cut, and no
    two units are resident at once."""
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
            swaps += event.model != "cold"
        elif event.data["after"] in ("stopped", "backoff", "failed"):
            resident.discard(str(event.unit))
    assert 2 <= swaps <= 32
