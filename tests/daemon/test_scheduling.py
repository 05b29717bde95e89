"""Scheduling through the whole server, with real engines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from corral import journal
from corral.api import UnitInfo
from corral.config.paths import Paths
from corral.errors import UnknownModel
from corral.story import tell
from support.engines import until
from support.ggufs import write_chain, write_random
from support.server import Server

WORDS = ["red", "green", "blue"]
SAID: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "go"}]


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


@asynccontextmanager
async def streams(client: openai.AsyncOpenAI, model: str, count: int) -> AsyncIterator[list[str]]:
    """So many endless answers, all of them wanted at once; the units that gave those that have begun."""
    units: list[str] = []
    ends = asyncio.Event()

    async def one() -> None:
        async with client.chat.completions.with_streaming_response.create(
            model=model, messages=SAID, stream=True, max_tokens=60000
        ) as answer:
            units.append(answer.headers["x-corral-unit"])
            await ends.wait()

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    try:
        yield units
    finally:
        ends.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def position(client: openai.AsyncOpenAI, model: str) -> str | None:
    answer = await client.chat.completions.with_raw_response.create(model=model, messages=SAID, max_tokens=3)
    return answer.headers.get("x-corral-queue-position")


@pytest.fixture
def long_model(short_tmp: Path) -> str:
    write_random(short_tmp / "a.gguf", context=65536)
    return f"{{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 65536, parallel: 3"


async def test_replicas_share_a_queue(paths: Paths, long_model: str) -> None:
    """A model with two replicas starts the second when the first is full, and serves from both under its own name. By
    its own name, or one after an alias, a replica is stopped alone, and its story told, also without a server; the
    other one goes on, also when one dies, and both stop with their model."""
    with Server(paths, f"models: [{long_model}, replicas: 2, aliases: [other]}}]") as server:
        client = server.client
        async with client_of(server) as asking:
            async with streams(asking, "a", 6) as units:
                await until(lambda: len(units) == 6, "all of them to be served")
                assert set(units) == {"a.1", "a~2.1"}
                assert sorted(unit.unit for unit in client.units()) == ["a.1", "a~2.1"]
            said = await asking.chat.completions.create(model="a", messages=SAID, max_tokens=1)
            assert said.model == "a"

            stopped = await asyncio.to_thread(client.stop, "a~2")
            assert (stopped.model, stopped.changed, stopped.state, stopped.text) == (
                "a~2",
                True,
                "stopped",
                "a~2 is stopped",
            )
            assert {unit.unit: unit.state for unit in client.units()} == {"a.1": "ready", "a~2.1": "stopped"}
            assert client.stop("other~2").text == "a~2 does not run"
            with pytest.raises(UnknownModel):
                client.stop("a~3")
            assert client.logs("other~2", 5) and client.logs("other~2", 5) == client.logs("a~2", 5)
            told = client.story("other~2")
            assert told.model == "a~2"
            assert [chapter.lines[-1].text for chapter in told.chapters] == ["stopped: `corral stop`"]
            assert len(client.story("a").chapters) == 2

            async with streams(asking, "a", 6) as units:
                await until(lambda: len(units) == 6, "all of them to be served")
                assert set(units) == {"a.1", "a~2.2"}
            pid = next(unit.pid for unit in client.units() if unit.model == "a")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            async with streams(asking, "a", 2) as units:
                await until(lambda: len(units) == 2, "both to be served")
            await asyncio.to_thread(client.stop, "a")
            assert [unit.state for unit in client.units()] == ["stopped", "stopped"]
    told = tell(journal.read(paths.state_dir, about="a~2"), "a~2")
    assert "stopped: `corral stop`" in [line.text for chapter in told.chapters for line in chapter.lines]


@pytest.fixture
def another() -> Iterator[None]:
    """A program that is not Corral's, and holds 384 MiB."""
    words = "import sys; held = b'x' * (384 << 20); print(len(held), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield
        assert child.stdin is not None
        child.stdin.close()


async def test_memory_that_others_hold_is_told_of(paths: Paths, short_tmp: Path, another: None) -> None:
    """A start that lacks memory which is not Corral's says so at once, and its answer has it; one that never could have
    enough is refused without any wait, and nobody is told of a budget that there is none of."""
    write_random(short_tmp / "a.gguf", context=512)
    model = f"{{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 512, args: [--load-mode, none]}}"
    with Server(paths, "models: []") as server:
        (cpu,) = [each for each in server.client.devices() if each.name == "cpu"]
        assert cpu.total_bytes is not None
        assert cpu.free_bytes is not None
        others = cpu.total_bytes - cpu.free_bytes
        assert others > 256 << 20
        held = cpu.free_bytes + others // 2
        known = f"memory: {{cpu: {cpu.total_bytes}}}"  # which has footprints known from the start, and bounds nothing
        server.write(f"{known}\nheadroom: {held}\ntimeouts: {{queue: 2s}}\nmodels: [{model}]")
        assert server.client.reload().added == ["a"]
        async with client_of(server) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(model="a", messages=SAID, max_tokens=1)
        assert refused.value.status_code == 507
        assert "on cpu" in refused.value.response.headers["x-corral-waited-for"]
        assert "(headroom)" in refused.value.response.headers["x-corral-waited-for"]
        (waits,) = [event for event in server.client.events() if event.kind == "unit.waits"]
        assert waits.text.startswith("a waits for memory: it needs")
        lines = [line.text for chapter in server.client.story("a").chapters for line in chapter.lines]
        assert any(line.startswith("waits for memory: it needs") for line in lines)
        server.write(f"{known}\nheadroom: {cpu.total_bytes - (1 << 20)}\nmodels: [{model}]")
        server.client.reload()
        async with client_of(server) as client:
            with pytest.raises(openai.APIStatusError, match="may be used there") as refused:
                await client.chat.completions.create(model="a", messages=SAID, max_tokens=1)
        assert refused.value.status_code == 507
        assert "budget" not in refused.value.response.text
        assert "headroom" in refused.value.response.text


async def test_a_request_can_be_the_last_and_a_schedule_keeps_a_model(paths: Paths, long_model: str) -> None:
    """With a keep-alive of 0 the engine stops after the request; without one it stays. In a window of its schedule a
    model is loaded although nobody asks, and not stopped for being idle."""
    pinned = long_model.replace("name: a", "name: kept", 1)
    with Server(paths, f"models: [{long_model}}}, {pinned}, idle_timeout: 0, schedule: [{{keep: pin}}]}}]") as server:

        def unit(model: str) -> UnitInfo:
            return next(unit for unit in server.client.units() if unit.model == model)

        await until(lambda: bool(server.states("kept")) and server.states("kept")[-1][1] == "ready", "it to be there")
        async with client_of(server) as client:
            ask = client.chat.completions.create
            await ask(model="a", messages=SAID, max_tokens=1)
            assert unit("a").idle_stop_in_s is not None
            await ask(model="a", messages=SAID, max_tokens=1, extra_headers={"x-corral-keep-alive": "-1"})
            assert unit("a").idle_stop_in_s is None
            await ask(model="a", messages=SAID, max_tokens=1, extra_headers={"x-corral-keep-alive": "0"})
            await until(lambda: server.states("a")[-1][1] == "stopped", "it to be stopped")
        assert (unit("kept").idle_stop_in_s, unit("kept").kept) == (None, "pin")
        assert server.states("kept")[-1] == ("kept.1", "ready")


async def test_who_waits_is_told_and_the_default_model_comes_back(
    paths: Paths, long_model: str, short_tmp: Path
) -> None:
    """A request that has to wait is an event with its place in line, and its answer has that in a header. With
    return_to_default, the default model is loaded again once nothing was asked for so long."""
    write_chain(short_tmp / "b.gguf", WORDS)
    other = f"{{name: b, source: {short_tmp}/b.gguf, executable: embedded, context: 256}}"
    keys = "max_active: 1\ndefault_model: a\nreturn_to_default: 300ms\n"
    with Server(paths, f"{keys}models: [{long_model}}}, {other}]") as server:
        await until(lambda: bool(server.states("a")) and server.states("a")[-1][1] == "ready", "a to be there")
        async with client_of(server) as client:
            async with streams(client, "a", 1) as units:
                await until(lambda: len(units) == 1, "a to answer")
                asking = asyncio.create_task(position(client, "b"))
                await until(lambda: server.client.status().waiting == 1, "b to wait")
                text = [event.text for event in server.client.events() if event.kind == "request.waits"][-1]
                assert text.startswith("a request for b waits as number 1")
            assert await asking == "1"
        await until(lambda: server.states("a")[-1][1] == "ready" and len(server.states("a")) > 5, "a to be back")
        assert server.states("b")[-1][1] == "stopped"
