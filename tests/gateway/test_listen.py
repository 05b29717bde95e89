"""Addresses: opened, refused, changed while they are used, and closed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.config.settings import Listen, Settings
from corral.errors import ConfigError, PortInUse
from corral.gateway.app import build
from corral.gateway.http.sockets import holder
from corral.gateway.listen import Listeners
from gateway.stable import Stable
from gateway.wire import ask, connected, until

CHAT = "/v1/chat/completions"
STREAM = {"model": "m", "messages": [], "stream": True}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_tcp_and_unix_and_the_control_socket_answer_alike(stable: Stable, short_tmp: Path) -> None:
    """Every listener has all routes; sockets in the file system are for their owner alone."""
    plain, control = short_tmp / "s.sock", short_tmp / "c.sock"
    stable.change(listen=(Listen(port=0), Listen(path=plain)))
    stable.add("m")
    await stable.open(control)
    assert len(stable.listeners.addresses) == 2
    for where in (*stable.listeners.addresses, Listen(path=control)):
        assert (await ask(where, "GET", "/control/models")).status == 200
        assert (await ask(where, "POST", CHAT, STREAM)).events[-1] == "[DONE]"
    for path in (plain, control):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await stable.close()
    assert not plain.exists()
    assert not control.exists()


async def test_ipv6_works_where_the_machine_has_it(stable: Stable) -> None:
    """An IPv6 address is listened on and shown in brackets; without IPv6 it is a clear error."""
    stable.change(listen=(Listen("::1", 0),))
    try:
        await stable.open()
    except ConfigError as exc:
        assert exc.hint
        return
    assert str(stable.address).startswith("[::1]:")
    assert (await ask(stable.address, "GET", "/health")).status == 200


async def test_a_port_in_use_is_named_with_its_holder(stable: Stable) -> None:
    """The error has the port, who holds it where that can be seen, and a hint; nothing stays open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = free_port()
        stable.change(listen=(Listen(port=other), Listen(port=port)))
        with pytest.raises(PortInUse) as caught:
            await stable.open()
        assert caught.value.details["port"] == port
        assert str(port) in caught.value.message
        assert caught.value.hint
        if sys.platform == "linux":
            assert f"(pid {os.getpid()})" in caught.value.message
        with pytest.raises(ConnectionError):
            await ask(Listen(port=other), "GET", "/health")
    assert holder(port) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
async def test_an_address_that_is_not_ours_is_refused(stable: Stable, host: str) -> None:
    """A wrong address is an error of the configuration with a hint."""
    stable.change(listen=(Listen(host, 0),))
    with pytest.raises(ConfigError) as caught:
        await stable.open()
    assert caught.value.hint


async def test_a_socket_left_behind_is_replaced_and_a_living_one_is_not(stable: Stable, short_tmp: Path) -> None:
    """A stale path is taken over; one that somebody listens on, or that is no socket, is refused."""
    path = short_tmp / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    stable.change(listen=(Listen(path=path),))
    await stable.open()
    assert (await ask(Listen(path=path), "GET", "/health")).status == 200
    second = Listeners(build(stable, stable))
    with pytest.raises(PortInUse):
        await second.open(stable.settings)
    assert (await ask(Listen(path=path), "GET", "/health")).status == 200
    plain = short_tmp / "file"
    plain.write_text("mine")
    for bad in (plain, short_tmp / "none" / "x.sock", short_tmp / ("x" * 120)):
        with pytest.raises(ConfigError) as caught:
            await second.open(Settings(models={}, listen=(Listen(path=bad),)))
        assert caught.value.hint
    assert plain.read_text() == "mine"


async def test_a_models_own_port_answers_for_it(stable: Stable) -> None:
    """Who names no model there gets that one; who names another gets the other."""
    port = free_port()
    stable.add("m", port=port)
    stable.add("n")
    await stable.open()
    own = Listen(port=port)
    assert (await ask(own, "POST", CHAT, {"messages": []})).headers["x-corral-model"] == "m"
    assert (await ask(own, "POST", CHAT, {"model": "n"})).headers["x-corral-model"] == "n"
    assert (await ask(stable.address, "POST", CHAT, {"messages": []})).status == 400


async def test_ports_come_and_go_with_the_configuration(stable: Stable) -> None:
    """A new port is opened, a changed one serves its new model, a removed one refuses; streams on it go on."""
    first, second = free_port(), free_port()
    stable.add("m", ["--chunks", "5", "--stall-after-chunks", "3"], port=first)
    stable.add("n")
    await stable.open()
    models = stable.settings.models
    async with connected(Listen(port=first)) as wire:
        wire.request("POST", CHAT, STREAM)
        await wire.start()
        stable.change(
            models=MappingProxyType({"m": replace(models["m"], port=None), "n": replace(models["n"], port=second)})
        )
        await stable.listeners.update(stable.settings)
        assert (await ask(Listen(port=second), "POST", CHAT, {})).headers["x-corral-model"] == "n"
        with pytest.raises(ConnectionError):
            await ask(Listen(port=first), "GET", "/health")
        got = b""
        while b"w2" not in got:
            got += await wire.piece()
    stable.change(models=MappingProxyType({"m": replace(models["m"], port=second), "n": models["n"]}))
    await stable.listeners.update(stable.settings)
    assert (await ask(Listen(port=second), "POST", "/tokenize", {})).headers["x-corral-model"] == "m"


async def test_a_change_that_cannot_be_made_changes_nothing(stable: Stable) -> None:
    """When one port of a new configuration is taken, the old addresses stay and no new one is left open."""
    stable.add("m")
    stable.add("n")
    await stable.open()
    address, fresh = stable.address, free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        models = {
            "m": replace(stable.settings.models["m"], port=fresh),
            "n": replace(stable.settings.models["n"], port=taken.getsockname()[1]),
        }
        stable.next_settings = replace(stable.settings, models=MappingProxyType(models), listen=())
        answer = await ask(address, "POST", "/control/reload")
    assert (answer.status, answer.json["error"]["code"]) == (409, "port_in_use")
    assert stable.listeners.addresses == [address]
    with pytest.raises(ConnectionError):
        await ask(Listen(port=fresh), "GET", "/health")
    assert (await ask(address, "GET", "/health")).status == 200


async def test_closing_lets_answers_end(stable: Stable) -> None:
    """No new connections, but what runs comes to its end; idle connections are closed at once."""
    stable.add("m", ["--chunks", "20", "--chunk-interval-ms", "10"])
    await stable.open()
    address = stable.address
    async with connected(address) as wire, connected(address) as idle:
        wire.request("POST", CHAT, STREAM)
        idle.request("GET", "/health")
        await idle.rest()
        await wire.start()
        closing = asyncio.create_task(stable.listeners.close(20))
        answer = await wire.rest()
        assert answer.events[-1] == "[DONE]"
        assert not answer.broken
        await closing
        assert await idle.reader.read() == b""
    with pytest.raises(ConnectionError):
        await ask(address, "GET", "/health")


async def test_what_does_not_end_in_time_ends_with_an_error(stable: Stable) -> None:
    """At the deadline a stream gets its error event, a waiting request its error body, and a follower its end."""
    stable.add("m", ["--stall-after-chunks", "1"])
    stable.add("n")
    await stable.open()
    async with (
        connected(stable.address) as stalled,
        connected(stable.address) as queued,
        connected(stable.address) as following,
    ):
        stalled.request("POST", CHAT, STREAM)
        await stalled.start()
        stable.gate.clear()
        queued.request("POST", CHAT, {"model": "n"})
        following.request("GET", "/control/events?follow=1")
        await following.start()
        await until(lambda: stable.listeners.in_flight == 3, "all are being answered")
        closing = asyncio.create_task(stable.listeners.close(0.2))
        ended = await following.rest()
        assert not ended.broken
        assert b'"error"' not in ended.body
        broken = await stalled.rest()
        assert not broken.broken
        assert json.loads(broken.events[-1])["error"]["code"] == "shutting_down"
        refused = await queued.rest()
        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
        assert refused.headers["retry-after"]
        await closing
    assert (stable.held, stable.waiting) == (0, 0)


async def test_a_client_that_does_not_read_cannot_hold_up_the_end(stable: Stable) -> None:
    """Closing is bounded whatever clients do."""
    stable.add("m", ["--chunks", "400", "--chunk-bytes", "50000"])
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("POST", CHAT, STREAM)
        await wire.start()
        await stable.listeners.close(0.1)
        assert stable.held == 0
