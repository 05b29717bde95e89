"""Connections as seen from a raw socket: bad requests, pipelines, patience and its end, leaving in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.config.settings import Listen
from corral.gateway.app import build
from corral.gateway.connections import Limits
from corral.gateway.listen import Listeners
from gateway.stable import Stable
from gateway.wire import DEADLINE_S, until

CHAT = "/v1/chat/completions"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
QUICK = Limits(head_s=0.2, body_s=0.2, keep_alive_s=0.2, unread_s=0.3, linger_s=0.2, look_s=0.02)


class Raw:
    """One connection, bytes in and out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def all(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            got = b""
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    got += piece
            return got

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """One answer with a content-length."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].split(b"\r\n")
            fields = dict(line.split(b": ", 1) for line in lines[1:])
            return int(lines[0][9:12]), fields, await self.reader.readexactly(int(fields[b"content-length"]))


@asynccontextmanager
async def raw(where: Listen) -> AsyncIterator[Raw]:
    if where.path is not None:
        reader, writer = await asyncio.open_unix_connection(str(where.path))
    else:
        reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(body: bytes, *fields: bytes, path: str = CHAT) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", b"content-length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def impatient(stable: Stable) -> None:
    """The same gateway with less patience."""
    stable.listeners = Listeners(build(stable, stable), QUICK)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"GET /health HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        b"GET /health HTTP/1.1\nhost: x\n\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\na\x01: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /health HTTP/2.0\r\nhost: x\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    ],
)
async def test_a_bad_request_is_told_so_and_nothing_after_it_is_read(stable: Stable, request_bytes: bytes) -> None:
    """One 400 in the usual shape, then the connection ends: the request hidden behind it is never answered."""
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(request_bytes + HEALTH)
        got = await wire.all()
    assert got.count(b"HTTP/1.1 ") == 1
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert b"server: corral" in head
    found = json.loads(body)["error"]
    assert found["type"] == "invalid_request_error"
    assert found["hint"]
    await until(lambda: stable.listeners.in_flight == 0, "forgotten")


async def test_a_head_that_is_too_large_is_a_431(stable: Stable) -> None:
    """Too many fields, too long a field, a head without end."""
    await stable.open()
    for head in (b"a: b\r\n" * 200 + b"\r\n", b"a: " + b"b" * 70_000 + b"\r\n\r\n", b"a: " + b"b" * 70_000):
        async with raw(stable.address) as wire:
            wire.send(HEALTH[:-2] + head)
            got = await wire.all()
        assert got == b"" or got.startswith(b"HTTP/1.1 431 ")  # a client that still sends may be cut off


async def test_pipelined_requests_are_answered_in_order(stable: Stable) -> None:
    """One after the other, whatever each takes, bodies of both kinds in between."""
    stable.add("m", ["--chunk-interval-ms", "20"])
    await stable.open()
    asked = b'{"model": "m", "content": "%d"}'
    chunked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with raw(stable.address) as wire:
        wire.send(
            post(asked % 1) + HEALTH + b"\r\n" + chunked + b'e\r\n{"model": "m"}\r\n0\r\n\r\n' + post(b"{") + HEALTH
        )
        found = [await wire.answer() for _ in range(5)]
    assert [status for status, _, _ in found] == [200, 200, 200, 400, 200]
    assert [b"x-corral-model" in fields for _, fields, _ in found] == [True, False, True, False, False]
    assert json.loads(found[2][2])["fake"]["body_bytes"] == 14


async def test_a_pipeline_is_bounded(stable: Stable) -> None:
    """What is sent while a request waits is not taken in beyond a little; all of it is answered in the end."""
    stable.add("m")
    stable.gate.clear()
    await stable.open()
    count = 400
    padded = HEALTH[:-2] + b"a: " + b"b" * 40_000 + b"\r\n\r\n"
    async with raw(stable.address) as wire:
        wire.send(post(b'{"model": "m"}') + padded * count)
        transport = wire.writer.transport
        seen = -1

        async def stuck() -> bool:
            nonlocal seen
            before, seen = seen, transport.get_write_buffer_size()
            await asyncio.sleep(0.1)
            return before == seen

        await until(stuck, "the server reads no more")
        assert seen > 0  # of 16 MB, the kernel holds some
        stable.gate.set()
        for _ in range(count + 1):
            assert (await wire.answer())[0] == 200


async def test_a_connection_that_is_to_close_does(stable: Stable) -> None:
    """`connection: close` and HTTP/1.0 get one answer, and its end is the connection's."""
    stable.add("m")
    await stable.open()
    stream = b'{"model": "m", "stream": true}'
    for asked in (
        HEALTH[:-2] + b"connection: close\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    ):
        async with raw(stable.address) as wire:
            wire.send(asked)
            got = await wire.all()
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in got
        assert got.endswith(b'{"status": "ok"}')
    async with raw(stable.address) as wire:
        wire.send(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(stream), stream))
        got = await wire.all()
    assert b"transfer-encoding" not in got
    assert got.endswith(b"data: [DONE]\n\n")


async def test_a_wish_for_another_protocol_is_answered_as_plain_http(stable: Stable) -> None:
    """An upgrade changes nothing, not even for a request with a body."""
    stable.add("m")
    await stable.open()
    fields = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    async with raw(stable.address) as wire:
        wire.send(post(b'{"model": "m"}', *fields) + HEALTH)
        status, _, body = await wire.answer()
        assert (status, json.loads(body)["fake"]["body_bytes"]) == (200, 14)
        assert (await wire.answer())[0] == 200


async def test_an_absolute_target_is_ours_or_refused(stable: Stable) -> None:
    """As a client behind a proxy setting sends it."""
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(b"GET http://x/health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await wire.answer())[0] == 200
        wire.send(b"GET http://elsewhere/health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await wire.answer())[0] == 400


async def test_head_and_body_in_any_pieces(stable: Stable) -> None:
    """A request that comes byte by byte is the same request."""
    stable.add("m")
    await stable.open()
    async with raw(stable.address) as wire:
        wire.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(b'{"model": "m"}'):
            wire.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await wire.answer())[0] == 200


async def test_an_error_is_heard_while_the_body_still_comes(stable: Stable) -> None:
    """The answer is there before the body is, and does not get lost when the client sends on."""
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n")
        status, fields, _ = await wire.answer()
        assert (status, fields[b"connection"]) == (404, b"close")
        for _ in range(300):
            wire.send(b" " * 10_000)
            await wire.writer.drain()
        assert await wire.all() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET /hea", b"408"),
        (HEALTH[:-1], b"408"),
        (HEALTH + b"GET", b"200"),
        (HEALTH, b"200"),
        (b"\r\n", None),
        (post(b"x" * 100)[:-1], b"408"),
        (b"POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab", b"408"),
    ],
)
async def test_who_says_nothing_more_is_let_go(stable: Stable, sent: bytes, status: bytes | None) -> None:
    """Connections that send nothing, half a head, half a body or no second request end by themselves."""
    impatient(stable)
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(sent)
        got = await wire.all()
    assert got.startswith(b"HTTP/1.1 %b " % status if status else b"")
    assert bool(got) == bool(status)
    await until(lambda: stable.listeners.in_flight == 0, "forgotten")


async def test_there_are_never_more_connections_than_there_is_room_for(stable: Stable) -> None:
    """One too many is told so and closed; those that are open go on, and when one leaves there is room again."""
    stable.listeners = Listeners(build(stable, stable), Limits(connections=2))
    await stable.open()
    async with raw(stable.address) as first:
        async with raw(stable.address) as second:
            for each in (first, second):
                each.send(HEALTH)
                assert (await each.answer())[0] == 200
            async with raw(stable.address) as third:
                got = await third.all()
                assert got.startswith(b"HTTP/1.1 503 ")
                assert b"retry-after: 1\r\n" in got
                assert b"too_many_connections" in got
            first.send(HEALTH)
            assert (await first.answer())[0] == 200

        async def let_in() -> bool:
            async with raw(stable.address) as another:
                another.send(HEALTH)
                return (await another.answer())[0] == 200

        tries = 0
        while not await let_in():
            tries += 1
            assert tries < 500, "the place of the one that left was never given on"
            await asyncio.sleep(0.01)


async def test_a_trickle_is_no_progress(stable: Stable) -> None:
    """A byte now and then does not keep a head or a body alive."""
    impatient(stable)
    await stable.open()
    for begun in (b"GET /health HTTP/1.1\r\nhost: x\r\na: ", post(b"x" * 10_000)[:-9_900]):
        async with raw(stable.address) as wire:
            wire.send(begun)
            reading = asyncio.create_task(wire.all())
            while not reading.done():
                wire.send(b"y")
                await asyncio.sleep(0.02)
            assert (await reading).startswith(b"HTTP/1.1 408 ")


async def test_who_does_not_take_its_answer_is_let_go(stable: Stable) -> None:
    """A client that stops reading loses its connection and the engine is free."""
    impatient(stable)
    stable.add("m", ["--chunks", "400", "--chunk-bytes", "50000"])
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(post(b'{"model": "m", "stream": true}'))
        await wire.reader.readuntil(b"w0")
        await until(lambda: stable.held == 0, "released")
        await until(lambda: stable.listeners.in_flight == 0, "forgotten")


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("when", ["head", "body", "queued", "prefill", "stream"])
async def test_leaving_is_noticed_at_once(stable: Stable, how: str, when: str, short_tmp: Path) -> None:
    """Closed, closed in one direction, or reset, at any time, over TCP and unix sockets: nothing is held any more.

    A client that only closes its sending side cannot be told from one that is gone; it counts as gone.
    """
    stable.change(listen=(Listen(port=0), Listen(path=short_tmp / "s.sock")))
    stable.add("m", ["--first-byte-s", "60"] if when == "prefill" else ["--stall-after-chunks", "1"])
    await stable.open()
    whole = post(b'{"model": "m", "stream": true}')
    for where in stable.listeners.addresses:
        if when == "queued":
            stable.gate.clear()
        async with raw(where) as wire:
            wire.send(whole[: {"head": 20, "body": -5}.get(when, len(whole))])
            if when == "queued":
                await until(lambda: stable.waiting == 1, "queued")
            elif when == "prefill":
                await until(lambda: stable.held == 1, "held")
            elif when == "stream":
                await wire.reader.readuntil(b"w0")
            elif when == "body":
                await until(lambda: stable.listeners.in_flight == 1, "seen")
            if how == "half":
                wire.writer.write_eof()
                assert b"[DONE]" not in await wire.all()
            elif how == "reset":
                wire.writer.transport.abort()
            else:
                wire.writer.close()
            await until(lambda: stable.listeners.in_flight == 0, "forgotten")
            await until(lambda: (stable.held, stable.waiting) == (0, 0), "given back")


async def test_half_closed_after_the_answer_is_a_goodbye(stable: Stable) -> None:
    """What was answered is delivered; then we close too."""
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(HEALTH)
        assert (await wire.answer())[0] == 200
        wire.writer.write_eof()
        assert await wire.all() == b""
