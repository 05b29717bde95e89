"""What streams took is always known: from the engine's last event, by asking for it, or from the events that came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.access.desk import Desk
from corral.access.figures import Used
from corral.access.gate import AccessGate
from corral.access.keys import Limits
from corral.demo.where import demo_model
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from corral.gateway.path.count import asking, without_count
from corral.gateway.path.passage import LAST_CHUNK, chunks_without_count, in_chunk
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import Answer, ask, connected, until

CHAT = "/v1/chat/completions"
TASK = {"x-corral-keep-alive": "5m"}  # such requests take no fast path


class Counted:
    """A gateway with a key whose tokens are counted."""

    def __init__(self, stable: Stable, desk: Desk, secret: str) -> None:
        self.stable, self.desk, self.secret = stable, desk, secret

    def headers(self, fast: bool) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}", **({} if fast else TASK)}

    async def ask(self, body: dict[str, Any], *, fast: bool = True) -> Answer:
        return await ask(self.stable.listeners.addresses[0], "POST", CHAT, body, self.headers(fast))

    async def used(self) -> Used:
        return next(iter((await self.desk.usage()).values()), Used(0, 0, 0))


@pytest.fixture
async def counted(stable: Stable, tmp_path: Path) -> AsyncIterator[Counted]:
    desk = Desk(tmp_path / "access.db")
    writing = asyncio.create_task(desk.run())
    stable.listeners = Listeners(build(stable, stable, gate=AccessGate(desk, lambda: stable.settings)))
    await stable.listeners.open(stable.settings)
    made = await desk.create("k", ["infer"], [], Limits(tokens_per_day=1_000_000), None)
    yield Counted(stable, desk, made.secret)
    await stable.listeners.close(5.0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await desk.close()


def chat(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": "What is Corral?"}], **more}


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "task"])
async def test_llamacpps_last_event_says_it(counted: Counted, fast: bool) -> None:
    """A real engine is not asked: what is settled is what it says when a client asks."""
    add_llama(counted.stable, "demo", Path(str(demo_model())), "-c", "1024", "-t", "1")
    await counted.stable.start("demo")
    asked = await counted.ask(chat("demo", temperature=0, stream_options={"include_usage": True}), fast=fast)
    usage = json.loads(asked.events[-2])["usage"]
    assert await counted.used() == Used(1, usage["prompt_tokens"], usage["completion_tokens"])
    plain = await counted.ask(chat("demo", temperature=0), fast=fast)
    assert b'"usage"' not in plain.body
    assert await counted.used() == Used(2, 2 * usage["prompt_tokens"], 2 * usage["completion_tokens"])


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "task"])
async def test_an_engine_that_is_silent_is_asked(counted: Counted, fast: bool) -> None:
    """Once it is known to be: the first time, events count. Its answer to that is not for a client that did not ask."""
    counted.stable.add("m", ["--chunks", "5"])
    await counted.stable.start("m")
    first = await counted.ask(chat(max_tokens=50))
    before = await counted.used()
    assert before.requests == 1
    assert 5 <= before.completion <= 8  # all events count, also those around the text
    at_once = counted.stable.at_once
    second = await counted.ask(chat(max_tokens=50), fast=fast)
    assert counted.stable.at_once - at_once == fast
    after = await counted.used()
    assert (after.prompt - before.prompt, after.completion - before.completion) == (1, 5)
    sizes = [json.loads(answer.events[0])["fake"]["body_bytes"] for answer in (first, second)]
    assert sizes[1] - sizes[0] == len('"stream_options":{"include_usage":true},')
    for answer in (first, second):
        assert b'"usage"' not in answer.body
        assert answer.events[-1] == "[DONE]"
    third = await counted.ask(chat(max_tokens=50, stream_options={"include_usage": True}), fast=fast)
    assert json.loads(third.events[-2])["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "task"])
async def test_a_stream_that_is_left_is_settled_by_its_events(counted: Counted, fast: bool) -> None:
    """As many tokens as events came, and the prompt."""
    counted.stable.add("m", ["--chunks", "9", "--stall-after-chunks", "4"])
    await counted.stable.start("m")
    async with connected(counted.stable.listeners.addresses[0]) as wire:
        wire.request("POST", CHAT, chat(max_tokens=50), counted.headers(fast))
        await wire.start()
        got = b""
        while b"w3" not in got:
            got += await wire.piece()
        wire.drop()
        await until(lambda: counted.stable.held == 0, "released")
    used = await counted.used()
    assert 4 <= used.completion <= 6  # llama.cpp's first event says nothing
    assert used.prompt > 0


async def test_a_stream_that_goes_on_is_settled_as_a_whole(counted: Counted) -> None:
    """What two engines took for one answer is what one would have taken."""
    add_llama(counted.stable, "demo", Path(str(demo_model())), "-c", "1024", "-t", "1")
    await counted.stable.start("demo")
    unit = counted.stable.units_by_name["demo"]
    body = chat("demo", temperature=0, max_tokens=200, ignore_eos=True)
    await counted.ask(body)
    one = await counted.used()
    async with connected(counted.stable.listeners.addresses[0]) as wire:
        wire.request("POST", CHAT, body, counted.headers(True))
        await wire.start()
        got = b""
        while got.count(b"\n\n") < 10:
            got += await wire.piece()
        assert unit.process is not None
        unit.process.kill()
        unit.process.wait()
        got += (await wire.rest()).body
    assert b": corral.resumed" in got
    assert await counted.used() == Used(2, 2 * one.prompt, 2 * one.completion)
    assert one.completion == 200


@given(st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.text(max_size=5), st.integers()), max_size=3))
def test_a_body_that_asks(members: dict[str, Any]) -> None:
    """Nothing else in it changes, and it asks once."""
    for options in (None, {}, {"stream_options": {"x": 1}}, {"stream_options": {"include_usage": False}}):
        body = json.dumps({**members, **(options or {})}).encode()
        made = asking(body)
        assert made is not None
        request = json.loads(made)
        assert request.pop("stream_options")["include_usage"] is True
        assert request == members
        assert asking(made) is None
    assert (
        asking(b'{"a": "\\"stream_options\\""}')
        == b'{"stream_options":{"include_usage":true},"a": "\\"stream_options\\""}'
    )


def test_only_the_count_is_left_out() -> None:
    """Events with anything else in them stay."""
    said = b'data: {"choices":[{"delta":{"content":"\\"usage\\""}}],"usage":null}\n\n'
    count = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
    assert without_count(said + count + b"data: [DONE]\n\n") == said + b"data: [DONE]\n\n"
    assert without_count(count) == b""
    framed = in_chunk(said) + in_chunk(count + b"data: [DONE]\n\n")
    assert chunks_without_count(framed) == in_chunk(said + b"data: [DONE]\n\n")
    assert chunks_without_count(in_chunk(count) + LAST_CHUNK) == LAST_CHUNK
    assert chunks_without_count(in_chunk(count)) == b""
    assert chunks_without_count(in_chunk(b"data: 1\n\n")) == in_chunk(b"data: 1\n\n")
