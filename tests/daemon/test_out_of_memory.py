"""Real engines whose memory runs out while they serve: no client hears of it, and the next start needs less."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from random import Random

import pytest

from chaos.clients import Clients, Want
from chaos.feed import Feed
from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of other processes: Linux only")

WORDS = {"m": ["one", "two", "three"]}
LONG = (Want(False, 20, 160), Want(True, 20, 160))


async def squeezed(paths: Paths, place: Path, executable: str, together: int) -> tuple[list[str], list[str]]:
    """An engine may take no more memory from one moment on. What was not answered whole, and the story of the unit."""
    write_chain(place / "m.gguf", WORDS["m"], loop=True, mib=2)
    config = f"""
        models: [{{name: m, source: {place}/m.gguf, executable: {executable}, context: 2048, parallel: 4}}]
    """
    with Server(paths, config) as server:
        host, port = server.url.removeprefix("http://").split(":")
        clients = Clients(together, dict(WORDS), 0, (host, int(port)))
        feed = Feed(paths.control_socket)
        await feed.open()
        chance = Random(0)
        try:
            for _ in range(3):
                warm = await clients.ask("m", Want(False, 2, 20), chance)
                assert warm.end == "whole", str(warm)
            resource.prlimit(feed.pids["m"], resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
            for want in LONG * 3:
                await asyncio.gather(*(clients.ask("m", want, chance) for _ in range(together)))
        finally:
            await feed.close()
        story = await asyncio.to_thread(server.client.story, "m")
        return [str(each) for each in clients.amiss], [line.text for start in story.chapters for line in start.lines]


async def test_an_embedded_engine_without_memory(paths: Paths, short_tmp: Path) -> None:
    """Whether it goes on or dies of it, everybody is answered."""
    amiss, _ = await squeezed(paths, short_tmp, "embedded", 1)
    assert amiss == []


@pytest.mark.engines
@pytest.mark.parametrize("together", [1, 4])
async def test_a_llama_server_without_memory(paths: Paths, short_tmp: Path, together: int) -> None:
    """It lives on and refuses everything; it is replaced by one with a smaller batch, which answers in its place."""
    amiss, told = await squeezed(paths, short_tmp, os.environ["CORRAL_TEST_LLAMA_SERVER"], together)
    assert amiss == []
    assert any("answered with an error of its own: " in line and "std::bad_alloc" in line for line in told), told
    assert any("started again with a smaller batch" in line for line in told), told
