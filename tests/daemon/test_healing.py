"""What becomes of requests when their engine is hurt: the chaos suite's faults, one at a time and always tried."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from pathlib import Path

import pytest

from chaos.clients import MIXES, Clients, End
from chaos.feed import Feed
from corral.config.paths import Paths
from support.engines import until
from support.ggufs import write_chain
from support.server import Server

WORDS = {"m": ["one", "two", "three"]}


@pytest.fixture
def config(short_tmp: Path) -> str:
    write_chain(short_tmp / "m.gguf", WORDS["m"], loop=True, mib=2)
    return f"""
        timeouts: {{hang: 1s}}
        models: [{{name: m, source: {short_tmp}/m.gguf, executable: embedded, context: 512, parallel: 2}}]
    """


async def all_answered(server: Server, count: int, hurt: asyncio.Task[None] | None = None) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    clients = Clients(count, dict(WORDS), 0, (host, int(port)), ["m"], MIXES["load"])
    try:
        clients.begin()
        if hurt is not None:
            await hurt
        await until(lambda: clients.asked >= count, "everybody to have asked")
        clients.rest()
        await clients.settled(clients.of())
    finally:
        await clients.close()
    assert clients.whole >= count
    assert [str(each) for each in clients.amiss if each.end is not End.BROKEN_OFF] == []


async def test_a_mended_file_is_tried_at_once_and_a_load_may_crash(paths: Paths, config: str, short_tmp: Path) -> None:
    """Requests for a model whose file is damaged are refused; the first one after it was mended is answered. An engine
    that is killed while it loads is started again, and all who waited for it are answered."""
    sound = (short_tmp / "m.gguf").read_bytes()
    (short_tmp / "m.gguf").write_bytes(sound[: len(sound) // 2])
    with Server(paths, config) as server:
        host, port = server.url.removeprefix("http://").split(":")
        clients = Clients(1, dict(WORDS), 0, (host, int(port)))
        for _ in range(2):
            refused = await clients.ask("m", MIXES["load"][0], random.Random(0))
            assert refused.end is End.REFUSED and refused.code in ("start_failed", "model_file"), str(refused)
        (short_tmp / "m.gguf").write_bytes(sound)
        answered = await clients.ask("m", MIXES["load"][0], random.Random(0))
        assert answered.end is End.WHOLE, str(answered)

        await asyncio.to_thread(server.client.stop, "m")
        before = [after for _, after in server.states("m")].count("loading")
        feed = Feed(paths.control_socket)
        await feed.open()

        async def hurt() -> None:
            for _ in range(2):
                since = len(feed.seen)
                await feed.event(since, lambda event: event.after == "loading", "a load", 20)
                os.kill(feed.pids["m"], signal.SIGKILL)
            await feed.until(lambda: feed.states.get("m") == "ready", "m to be ready", 20)

        try:
            await all_answered(server, 6, asyncio.create_task(hurt()))
        finally:
            await feed.close()
        assert [after for _, after in server.states("m")].count("loading") >= before + 3


async def test_engines_without_their_socket_or_their_server(paths: Paths, config: str) -> None:
    """Requests that cannot reach an engine wait until it is replaced, however often that was tried meanwhile. A server
    whose port is taken says so and ends; the engines of the one before it run on, and the next adopts them."""
    with Server(paths, config) as server:
        await all_answered(server, 2)
        for each in list(paths.units_dir.glob("*.sock")):
            each.unlink()
        await all_answered(server, 6)
        assert ("m.2", "ready") in server.states("m")

        [unit] = server.client.units()
        address = server.url.removeprefix("http://")
        server.kill()
        server.listen = address
        host, port = address.split(":")
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind((host, int(port)))
            thief.listen()
            with pytest.raises(AssertionError, match="did not start"):
                server.start()
            assert server.process is not None and server.process.stdout is not None
            server.process.stdout.close()
            assert server.process.wait(20) != 0
            assert address in server.said()
        server.start()
        [again] = server.client.units()
        assert (again.state, again.pid) == ("ready", unit.pid)
        await all_answered(server, 2)
