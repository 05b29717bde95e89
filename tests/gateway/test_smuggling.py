"""Requests that hide another one, over real sockets: also behind a head that is known, and on the fast path."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from gateway.stable import Stable
from gateway.test_connection import CHAT, HEALTH, impatient, post, raw
from gateway.wire import until

BODY = b'{"model": "m"}'
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
"""Whoever answers it with a 404 has read it as a request."""

TO_MODELS = b"POST %b HTTP/1.1\r\nhost: x\r\n" % CHAT.encode()
CHUNKED = TO_MODELS + b"transfer-encoding: chunked\r\n\r\n"

LENGTHS = [
    b"+14", b"-14", b"0x0e", b"14,14", b"14, 14", b"14 14", b"1e1", b"", b"14;", b"\x0b14", b"14\x00",
    b"9" * 40, b"14\r\ncontent-length: 14", b"14\r\nContent-Length: 0", b"14\r\ntransfer-encoding: chunked",
    b"14\r\nTransfer-Encoding: identity", b"\r\n 14", b"\xb2", "\u0661\u0664".encode(),
]  # fmt: skip

CODINGS = [
    b"transfer-encoding: chunked\r\ncontent-length: 14", b"transfer-encoding: identity", b"transfer-encoding: gzip",
    b"transfer-encoding: chunked, identity", b"transfer-encoding: identity, chunked", b"transfer-encoding: xchunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", b"transfer-encoding: \x0bchunked",
    b"transfer-encoding : chunked", b"transfer-encoding:\r\n chunked", b"transfer-encoding\r\n: chunked",
    b" transfer-encoding: chunked", b"x: y\ntransfer-encoding: chunked", b"x: y\rtransfer-encoding: chunked",
    b"transfer-encoding: chunked\x00", b"transfer-encoding: \"chunked\"", b"\x00transfer-encoding: chunked",
]  # fmt: skip

CHUNKS = [
    b"e;" + b"a" * 3000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"e;a=" + b'"' + b"b" * 3000 + b'"\r\n' + BODY + b"\r\n0\r\n\r\n",
    b";".join([b"e", *[b"a=b"] * 2000]) + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"e;\n" + BODY + b"\r\n0\r\n\r\n", b"e;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n", b"e\r" + BODY + b"\r\n0\r\n\r\n",
    b"e \r\n" + BODY + b"\r\n0\r\n\r\n", b" e\r\n" + BODY + b"\r\n0\r\n\r\n", b"0xe\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"-e\r\n" + BODY + b"\r\n0\r\n\r\n", b"e\r\n" + BODY + b"X\r\n0\r\n\r\n", b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"e\r\n" + BODY + b"\n0\r\n\r\n", b"e\r\n" + BODY + b"\r\n0\n\n", b"\r\ne\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"1000000000000000e\r\n" + BODY + b"\r\n0\r\n\r\n", b"e\r\n" + BODY + b"\r\n0\r\nbad trailer\r\n\r\n",
    b"e\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\n\r\n",
    b"e\r\n" + BODY + b"\r\n0\r\n" + b"a: b\r\n" * 100 + b"\r\n",
    b"e\r\n" + BODY + b"\r\n0\r\n a: folded\r\n\r\n", b"\xef\xbb\xbfe\r\n" + BODY + b"\r\n0\r\n\r\n",
]  # fmt: skip


@pytest.fixture(params=["first", "known"])
async def known(request: pytest.FixtureRequest, stable: Stable) -> bool:
    """Whether the connection had the same head, told rightly, twice before: then it need not be read again."""
    stable.add("m")
    await stable.open()
    await stable.start("m")
    return str(request.param) == "known"


async def refused(stable: Stable, known: bool, request_bytes: bytes, cut: int = 0) -> None:
    """Makes sure of one 400 for it and nothing after it."""
    async with raw(stable.address) as wire:
        if known:
            for _ in range(2):
                wire.send(post(BODY))
                assert (await wire.answer())[0] == 200
        data = request_bytes + HIDDEN + HEALTH
        wire.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (data[:cut], data[cut:]):
            wire.send(part)
            await asyncio.sleep(0.002 if cut else 0)
        got = await wire.all()
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", got)] == [400], (request_bytes, got)
    assert b"connection: close" in got
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["hint"]
    await until(lambda: stable.listeners.in_flight == 0 and stable.held == 0, "forgotten")


async def test_a_length_is_digits_and_there_is_one(stable: Stable, known: bool) -> None:
    """Whatever else stands there is refused, and what comes behind it is not read."""
    for length in LENGTHS:
        head = TO_MODELS + b"content-length: %b\r\n\r\n" % length
        await refused(stable, known, head + BODY)
        await refused(stable, known, head + BODY, cut=len(head) - 5)


async def test_a_coding_is_chunked_and_there_is_one(stable: Stable, known: bool) -> None:
    """Other codings, other spellings and folded or hidden lines are refused."""
    for field in CODINGS:
        await refused(stable, known, TO_MODELS + field + b"\r\n\r\ne\r\n" + BODY + b"\r\n0\r\n\r\n")


async def test_chunks_are_read_in_one_way(stable: Stable, known: bool) -> None:
    """Bare line feeds, wrong sizes, endless extensions and trailers are refused, whole or cut."""
    for body in CHUNKS:
        await refused(stable, known, CHUNKED + body)
        await refused(stable, known, CHUNKED + body, cut=len(CHUNKED) + 1)


async def test_a_length_with_zeros_before_it_is_that_length(stable: Stable, known: bool) -> None:
    """Known head or not, the body ends where it says, and the next request begins there."""
    async with raw(stable.address) as wire:
        for digits in (b"14", b"014", b"0000014", b"14"):
            wire.send(TO_MODELS + b"content-length: %b\r\n\r\n" % digits + BODY + HEALTH)
            status, _, body = await wire.answer()
            assert (status, json.loads(body)["fake"]["body_bytes"]) == (200, 14)
            assert (await wire.answer())[2] == b'{"status": "ok"}'


async def test_small_extensions_and_trailers_are_dropped(stable: Stable, known: bool) -> None:
    """They are right, if seldom; the engine sees the body alone."""
    async with raw(stable.address) as wire:
        wire.send(
            CHUNKED + b'7;a="b";c\r\n' + BODY[:7] + b"\r\n7\r\n" + BODY[7:] + b"\r\n0\r\nx-sum: 1\r\n\r\n" + HEALTH
        )
        status, _, body = await wire.answer()
        assert (status, json.loads(body)["fake"]["body_bytes"]) == (200, 14)
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize("begun", [CHUNKED, CHUNKED + b"e;a=", CHUNKED + b"e\r\n" + BODY + b"\r\n0\r\nx: "])
async def test_slow_chunks_come_to_an_end(stable: Stable, begun: bytes) -> None:
    """A byte of an extension or a trailer now and then keeps nothing alive: it is too slow, or too long."""
    impatient(stable)
    stable.add("m")
    await stable.open()
    async with raw(stable.address) as wire:
        wire.send(begun)
        reading = asyncio.create_task(wire.all())
        while not reading.done():
            wire.send(b"1")
            await asyncio.sleep(0.02)
        assert re.match(rb"HTTP/1\.1 4(00|08) ", await reading)
    await until(lambda: stable.listeners.in_flight == 0 and stable.held == 0, "forgotten")
