"""Requests to engines: every way an answer can be framed, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.engines.plan import Endpoint
from corral.errors import EngineError, EngineGone
from corral.gateway.http.headers import downward, first, upward
from corral.gateway.path import link, upstream
from corral.gateway.path.link import Pool
from gateway.wire import until

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n"


class Canned:
    """An engine that sends `pieces` whatever it is asked, then closes, or waits when `hold`."""

    def __init__(self, pieces: list[bytes], hold: bool) -> None:
        self.pieces = pieces
        self.hold = hold
        self.requests: list[bytes] = []
        self.sent = 0
        self.closed_by_peer = asyncio.Event()
        self.serving: set[asyncio.Task[None]] = set()

    def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.requests.append(head + await reader.readexactly(int(lengths[0]) if lengths else 0))
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)
            if self.hold and await reader.read() == b"":
                self.closed_by_peer.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def canned(directory: Path, *pieces: bytes, hold: bool = False) -> AsyncIterator[tuple[Endpoint, Canned]]:
    engine = Canned(list(pieces), hold)
    path = directory / "canned.sock"
    server = await asyncio.start_unix_server(engine.connection, str(path))
    try:
        yield Endpoint(path), engine
    finally:
        server.close()
        path.unlink()
        await asyncio.gather(*engine.serving)


async def get(endpoint: Endpoint, method: str = "GET", body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    async with upstream.request(endpoint, method, b"/x", [(b"x-mine", b"1")], body) as response:
        parts = []
        while piece := await response.read():
            parts.append(piece)
        return response.status, dict(response.headers), b"".join(parts)


@pytest.mark.parametrize(
    ("method", "pieces", "status", "body"),
    [
        ("GET", [HEAD + b"content-length: 5\r\n\r\nhello"], 200, b"hello"),
        ("GET", [HEAD + b"Content-Length: 5\r\n\r\n", b"he", b"llo"], 200, b"hello"),
        ("GET", [CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: 1\r\n\r\n"], 200, b"hello"),
        ("GET", [HEAD + b"connection: close\r\n\r\nhel", b"lo"], 200, b"hello"),
        ("GET", [HEAD + b"content-length: 0\r\n\r\n"], 200, b""),
        ("GET", [b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ("GET", [b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], 304, b""),
        ("HEAD", [HEAD + b"content-length: 5\r\n\r\n"], 200, b""),
        ("HEAD", [CHUNKED], 200, b""),
        ("GET", [INTERIM, HEAD + b"content-length: 2\r\n\r\nok"], 200, b"ok"),
        ("GET", [bytes([byte]) for byte in HEAD + b"content-length: 2\r\n\r\nok"], 200, b"ok"),
    ],
)  # fmt: skip
async def test_every_framing_is_read(
    short_tmp: Path, method: str, pieces: list[bytes], status: int, body: bytes
) -> None:
    """Length, chunks, end of connection, no body at all, interim answers, byte by byte."""
    async with canned(short_tmp, *pieces) as (endpoint, _):
        got_status, headers, got = await get(endpoint, method)
    assert (got_status, got) == (status, body)
    assert b"link" not in headers


async def test_the_request_is_sent_as_given(short_tmp: Path) -> None:
    """Method, target, fields and body, with host, connection and length added."""
    async with canned(short_tmp, HEAD + b"content-length: 0\r\n\r\n") as (endpoint, engine):
        await get(endpoint, "POST", b"body" * 50_000)
        await get(endpoint, "DELETE")
    head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /x HTTP/1.1", b"host: localhost", b"connection: close", b"x-mine: 1", b"content-length: 200000",
    ]  # fmt: skip
    assert body == b"body" * 50_000
    assert b"content-length" not in engine.requests[1]


@pytest.mark.parametrize(
    ("pieces", "sent_any"),
    [
        ([], False),
        ([b"HTTP/1.1 200"], False),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], False),
        ([HEAD + b"content-length: 5\r\n\r\nhel"], True),
        ([CHUNKED + b"5\r\nhello\r\n"], True),
        ([CHUNKED], True),
    ],
)
async def test_an_answer_that_stops_is_known_as_such(short_tmp: Path, pieces: list[bytes], sent_any: bool) -> None:
    """EngineGone, with whether a part of the answer had come."""
    async with canned(short_tmp, *pieces) as (endpoint, _):
        with pytest.raises(EngineGone) as caught:
            await get(endpoint)
    assert caught.value.details == {"sent_any": sent_any, "untouched": False}
    assert caught.value.hint


@pytest.mark.parametrize(
    "pieces",
    [
        [b"hello\r\n\r\n"],
        [HEAD + b"content-length: x\r\n\r\n"],
        [CHUNKED + b"zz\r\n"],
        [HEAD, *[b"x-%d: " % i + b"y" * 1000 + b"\r\n" for i in range(400)]],
    ],
)
async def test_an_answer_that_is_no_http_is_an_engine_error(short_tmp: Path, pieces: list[bytes]) -> None:
    """And so is a head that never ends."""
    async with canned(short_tmp, *pieces, hold=True) as (endpoint, _):
        with pytest.raises(EngineError) as caught:
            await get(endpoint)
    assert not isinstance(caught.value, EngineGone)


async def test_an_engine_that_cannot_be_reached_saw_nothing(short_tmp: Path) -> None:
    """No socket, a dead socket, a closed port: EngineGone with `untouched`."""
    stale = short_tmp / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    for endpoint in (Endpoint(short_tmp / "none.sock"), Endpoint(stale), Endpoint(port=port)):
        with pytest.raises(EngineGone) as caught:
            await get(endpoint)
        assert caught.value.details == {"sent_any": False, "untouched": True}
        assert str(endpoint) in caught.value.message


async def test_a_full_backlog_is_waited_for(short_tmp: Path) -> None:
    """An engine that accepts late is knocked at again, up to the deadline for connecting."""
    path = short_tmp / "busy.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        others = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for other in others:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                other.connect(str(path))
        with pytest.raises(EngineGone, match="takes no connection"):
            async with upstream.request(Endpoint(path), "GET", b"/", [], connect_s=0.05):
                pass
        asking = asyncio.create_task(get(Endpoint(path)))
        busy.setblocking(False)
        loop = asyncio.get_running_loop()
        answered = []
        while not asking.done():
            async with asyncio.timeout(10):
                peer, _ = await loop.sock_accept(busy)
            peer.setblocking(False)
            answered.append(peer)
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(peer, HEAD + b"content-length: 2\r\n\r\nok")
            for other in others:
                other.close()
            await asyncio.wait([asking], timeout=0.05)
        assert (await asking)[2] == b"ok"
        for peer in answered:
            peer.close()


async def test_loopback_tcp_works_too(short_tmp: Path) -> None:
    """An engine without unix sockets is reached over TCP."""
    engine = Canned([HEAD + b"content-length: 2\r\n\r\nok"], False)
    server = await asyncio.start_server(engine.connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await get(Endpoint(port=port)))[2] == b"ok"
    server.close()
    await asyncio.gather(*engine.serving)


async def test_what_is_not_read_is_not_taken_in(short_tmp: Path) -> None:
    """An answer of many megabytes fills a bounded buffer and then waits in the engine."""
    block = b"x" * 100_000
    head = HEAD + b"content-length: %d\r\n\r\n" % (len(block) * 300)
    async with (
        canned(short_tmp, head, *[block] * 300) as (endpoint, engine),
        upstream.request(endpoint, "GET", b"/", []) as response,
    ):
        await until(lambda: response.buffered_bytes > upstream.HIGH_BYTES, "the buffer is full")
        seen = -1

        async def stuck() -> bool:
            nonlocal seen
            before, seen = seen, engine.sent
            await asyncio.sleep(0.05)
            return before == seen

        await until(stuck, "the engine waits")
        assert response.buffered_bytes < 2 * upstream.HIGH_BYTES
        assert engine.sent < len(block) * 100
        total = 0
        while piece := await response.read():
            total += len(piece)
        assert total == len(block) * 300


class Keeping:
    """An engine that keeps connections: it sends the next of `answers` for each request, None closes instead."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        self.ended += 1
        writer.close()


@asynccontextmanager
async def keeping(directory: Path, *answers: bytes | None) -> AsyncIterator[tuple[Endpoint, Keeping, Pool]]:
    engine, pool = Keeping(list(answers)), Pool()
    path = directory / "keeping.sock"
    server = await asyncio.start_unix_server(engine.serve, str(path))
    try:
        yield Endpoint(path), engine, pool
    finally:
        pool.close()
        server.close()
        path.unlink(missing_ok=True)
        await until(lambda: engine.ended == engine.connections, "all connections ended")


async def pooled(endpoint: Endpoint, pool: Pool) -> bytes:
    async with upstream.request(endpoint, "GET", b"/x", [], pool=pool) as response:
        parts = []
        while piece := await response.read():
            parts.append(piece)
        return b"".join(parts)


OK = HEAD + b"content-length: 2\r\n\r\nok"


async def test_a_connection_is_kept_after_a_plain_answer(short_tmp: Path) -> None:
    """The next request goes out on it; without a pool each has its own and says so."""
    async with keeping(short_tmp, *[OK] * 4) as (endpoint, engine, pool):
        for _ in range(3):
            assert await pooled(endpoint, pool) == b"ok"
        assert engine.connections == 1
        assert b"connection" not in b"".join(engine.requests)
        assert (await get(endpoint))[2] == b"ok"
        assert engine.connections == 2
        assert b"connection: close" in engine.requests[-1]


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"more",
        OK + OK,
    ],
)
async def test_a_connection_is_not_kept_after_anything_else(short_tmp: Path, answer: bytes) -> None:
    """Streams, a goodbye, an old protocol, more bytes than were asked for."""
    async with keeping(short_tmp, answer, OK) as (endpoint, engine, pool):
        assert await pooled(endpoint, pool) == b"ok"
        assert await pooled(endpoint, pool) == b"ok"
        assert engine.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced(short_tmp: Path) -> None:
    """Whether its end was noticed before or only by using it: the request is asked again on a fresh one, once."""
    async with keeping(short_tmp, OK, None, OK, None, None) as (endpoint, engine, pool):
        assert await pooled(endpoint, pool) == b"ok"
        assert await pooled(endpoint, pool) == b"ok"
        assert (engine.connections, len(engine.requests)) == (2, 3)
        with pytest.raises(EngineGone) as caught:
            await pooled(endpoint, pool)
        assert caught.value.details == {"sent_any": False, "untouched": False}
        assert (engine.connections, len(engine.requests)) == (3, 5)


async def test_an_engine_that_died_with_a_kept_connection_may_have_been_touched(short_tmp: Path) -> None:
    """Nobody knows whether it saw the request, so it does not count as untouched."""
    async with keeping(short_tmp, OK, None) as (endpoint, _, pool):
        assert await pooled(endpoint, pool) == b"ok"
        assert endpoint.socket is not None
        endpoint.socket.unlink()
        with pytest.raises(EngineGone) as caught:
            await pooled(endpoint, pool)
        assert caught.value.details == {"sent_any": False, "untouched": False}


async def test_kept_connections_are_let_go_soon(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the engine would close them."""
    monkeypatch.setattr(link, "IDLE_S", 0.05)
    async with keeping(short_tmp, OK) as (endpoint, engine, pool):
        assert await pooled(endpoint, pool) == b"ok"
        await until(lambda: engine.ended == 1, "closed")


async def test_what_is_poured_comes_at_once_and_stops_when_told(short_tmp: Path) -> None:
    """A sink gets every byte in order, nothing while it is full, and its own errors come back."""
    block = b"x" * 100_000
    head = HEAD + b"content-length: %d\r\n\r\n" % (len(block) * 100)
    got = rooms = 0

    async with canned(short_tmp, head, *[block] * 100) as (endpoint, _):
        async with upstream.request(endpoint, "GET", b"/", []) as response:
            full = False

            def sink(data: bytes) -> bool:
                nonlocal got, full
                assert not full
                got += len(data)
                full = got % 3 == 0
                return not full

            async def room() -> None:
                nonlocal rooms, full
                rooms += 1
                full = False

            await response.pour(sink, room)
        assert got == len(block) * 100

        def broken(data: bytes) -> bool:
            raise EngineError("an event that is too long")

        async with upstream.request(endpoint, "GET", b"/", []) as response:
            with pytest.raises(EngineError, match="too long"):
                await response.pour(broken, room)


async def test_leaving_closes_the_connection(short_tmp: Path) -> None:
    """When the caller is cancelled or leaves, the engine sees it at once, before and in the middle of an answer."""
    for pieces in ([], [HEAD + b"content-length: 9\r\n\r\nhel"]):
        async with canned(short_tmp, *pieces, hold=True) as (endpoint, engine):
            asking = asyncio.create_task(get(endpoint))
            await until(lambda engine=engine: len(engine.requests) == 1, "asked")
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            async with asyncio.timeout(10):
                await engine.closed_by_peer.wait()


def test_fields_that_speak_of_one_connection_do_not_cross() -> None:
    """Hop-by-hop fields, and those that Connection names, are dropped both ways; all others keep order and spelling."""
    fields = [
        (b"accept", b"*/*"), (b"connection", b"X-Hop, close"), (b"x-hop", b"1"), (b"keep-alive", b"5"),
        (b"transfer-encoding", b"chunked"), (b"accept-encoding", b"gzip"), (b"x-a", b"A"), (b"x-a", b"B"),
        (b"date", b"d"), (b"server", b"s"), (b"content-type", b"a/b"), (b"content-length", b"3"),
    ]  # fmt: skip
    assert downward([*fields, (b"access-control-allow-origin", b"*")]) == downward(fields)
    assert downward(fields) == [
        (b"accept", b"*/*"), (b"accept-encoding", b"gzip"), (b"x-a", b"A"), (b"x-a", b"B"), (b"content-type", b"a/b"),
    ]  # fmt: skip
    sent = upward(fields, b"id", identity=True)
    assert sent == [
        (b"accept", b"*/*"), (b"x-a", b"A"), (b"x-a", b"B"), (b"date", b"d"), (b"server", b"s"),
        (b"content-type", b"a/b"), (b"x-request-id", b"id"),
    ]  # fmt: skip
    assert first(upward(fields, b"id", identity=False), b"accept-encoding") == b"gzip"
