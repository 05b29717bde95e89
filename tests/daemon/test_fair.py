"""Requests that an engine would leave alone for as long as there is other work."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import openai
import pytest

from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server

SLOTS = 4
CLIENTS = 10
REQUESTS = 200
ROUNDS = 6
"""So many times as many, until the engine was unfair: when it is depends on what else the machine does."""


@pytest.mark.long
async def test_nobody_is_passed_over(paths: Paths, short_tmp: Path) -> None:
    """Prompts that each fill several batches, and always more of them: llama.cpp alone reads those of its first slots
    again and again. No request, streamed or not, is passed by more others than come while that shows and is mended."""
    write_chain(short_tmp / "a.gguf", ["red", "green", "blue"], loop=True, mib=2, context=1024)
    model = (
        f"{{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 512, parallel: {SLOTS}, "
        "args: [--threads, 1, --batch-size, 32, --ubatch-size, 32]}"
    )
    answered = wanted = 0
    passed: list[int] = []
    with Server(paths, f"timeouts: {{hang: 2s}}\nmodels: [{model}]") as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:

            async def one(number: int) -> None:
                nonlocal answered
                chance = random.Random(number)
                while len(passed) < wanted:
                    before = answered
                    said: list[openai.types.chat.ChatCompletionMessageParam] = [
                        {"role": "user", "content": chance.randbytes(90).hex()}
                    ]
                    if chance.random() < 0.5:
                        chunks = await client.chat.completions.create(
                            model="a", messages=said, max_tokens=2, stream=True
                        )
                        words = "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
                    else:
                        answer = await client.chat.completions.create(model="a", messages=said, max_tokens=2)
                        words = answer.choices[0].message.content or ""
                    assert words == "red green"
                    passed.append(answered - before)
                    answered += 1

            unfair: list[str] = []
            while not unfair and wanted < ROUNDS * REQUESTS:
                wanted += REQUESTS
                await asyncio.gather(*(one(number) for number in range(CLIENTS)))
                unfair = [event.text for event in server.client.events() if event.kind == "unit.unfair"]
        assert unfair and all("passed" in text for text in unfair), "llama.cpp has become fair by itself"
        assert max(passed) < REQUESTS / 2, "alone, the engine leaves one alone until there is nothing else to do"
