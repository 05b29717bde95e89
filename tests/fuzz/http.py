"""Targets: HTTP on both sides of the gateway, however it is cut on its way."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import httptools

from corral.errors import CallerError, CorralError, EngineError
from corral.gateway.connection import Connection
from corral.gateway.connections import Connections, Limits
from corral.gateway.exchange import ClientLeft, Exchange
from corral.gateway.http.chunks import Chunks
from corral.gateway.http.head import Head
from corral.gateway.http.heads import Heads
from corral.gateway.path.fast import Fast
from corral.gateway.path.fast_heads import Answers as EngineHeads
from corral.gateway.path.passage import Passage
from corral.gateway.path.upstream import Response
from fuzz.material import pieces

_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")


# A request's head.


def head(data: bytes) -> None:
    """The same whole and in pieces; what is taken has no two meanings; a remembered one says what a read one says."""
    whole, in_pieces = _read(data, [data]), _read(data, list(pieces(data)))
    if isinstance(whole, str) or isinstance(in_pieces, str):
        assert (isinstance(whole, str), isinstance(in_pieces, str)) == (True, True), (whole, in_pieces)
        return
    if whole is None or in_pieces is None:
        assert whole is in_pieces, (whole, in_pieces)
        return
    (one, end), (other, other_end) = whole, in_pieces
    assert end == other_end and _facts(one) == _facts(other)
    text = data[:end]
    assert not _BARE.search(text.lstrip(b"\r\n")), "a line of a head ends in CR LF and in nothing else"
    named = [name for name, _ in one.fields]
    lengths, codings = named.count(b"content-length"), named.count(b"transfer-encoding")
    assert lengths + codings <= 1, "a body has one length"
    assert (one.length is not None, one.chunked) == (bool(lengths), bool(codings))
    assert named.count(b"host") == 1 or (one.version == "1.0" and not named.count(b"host"))
    known = Heads()
    known.remember(text, one)
    for other_length in (b"0", b"7", b"0012", b"123456789012345"):
        again = re.sub(rb"(?i)(\r\ncontent-length: ?)[0-9]+(\r\n)", rb"\g<1>%b\g<2>" % other_length, text)
        if (found := known.find(again)) is None:
            continue
        anew = _read(again, [again])
        assert isinstance(anew, tuple), f"remembered, but refused when it is read: {again!r}"
        assert _facts(anew[0])[:-1] == _facts(found[0])[:-1] and anew[1] == found[2] == len(again)
        assert anew[0].length == found[1]


def _facts(read: Head) -> tuple[Any, ...]:
    fields = [field for field in read.fields if field[0] != b"content-length"]
    return (
        read.method, read.path, read.raw_path, read.query, read.version, read.keep_alive, read.expects, read.chunked,
        fields, read.length,
    )  # fmt: skip


def _read(data: bytes, parts: list[bytes]) -> tuple[Head, int] | str | None:
    """The head and its size, why it was refused, or None when it is not whole."""
    made, before = Head(), 0
    for part in parts:
        try:
            if end := made.feed(part):
                return made, before + end
        except CallerError as exc:
            assert exc.hint and exc.status in (400, 431)
            return exc.message
        before += len(part)
    return None


# A chunked body, and an engine's events on their way through.


class _Oracle:
    """llhttp's own reading."""

    def __init__(self) -> None:
        self.body = b""
        self.done = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


_POST = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(data: bytes) -> None:
    """The same whole and in pieces, never read otherwise than by llhttp; events go on unchanged."""
    whole, in_pieces = _chunked([data]), _chunked(list(pieces(data)))
    assert whole == in_pieces, (whole, in_pieces)
    body, used, done, refused = whole
    oracle = _Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.feed_data(_POST)
    try:
        parser.feed_data(data[:used] if done else data)
    except httptools.HttpParserError:
        assert refused or not done
    else:
        assert refused or (done, body) == (oracle.done, oracle.body)
    _passage(data, body, done, refused)


def _chunked(parts: list[bytes]) -> tuple[bytes, int, bool, bool]:
    made, used = Chunks(), 0
    out: list[bytes] = []
    for part in parts:
        try:
            used += made.feed(part, out)
        except CallerError as exc:
            assert exc.hint
            return b"", 0, False, True
    return b"".join(out), used if made.done else 0, made.done, False


def _passage(data: bytes, body: bytes, done: bool, refused: bool) -> None:
    for parts in ([data], list(pieces(data))):
        passage, out = Passage(), b""
        try:
            for part in parts:
                if passage.done:
                    break
                out += passage.feed(part)
        except EngineError as exc:
            assert refused, exc.message
            continue
        if refused:
            # Whatever went out before is chunks that are right all the same.
            assert not _chunked([out])[3]
            continue
        sent, _, ended, wrong = _chunked([out])
        assert not wrong and passage.done == ended == done
        assert sent == body if done else body.startswith(sent)


# A client's connection.


class _Transport(asyncio.Transport):
    """Where a connection writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sslcontext": True}.get(name, default)

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class _Echo:
    """Answers each request with what it was read as."""

    def __init__(self) -> None:
        self.fast: Fast | None = None
        self.active: set[Exchange] = set()
        self.troubles: list[BaseException] = []
        self.ended: set[Exchange] = set()

    async def answer(self, exchange: Exchange) -> None:
        try:
            await self._answer(exchange)
        except ClientLeft:
            return
        except Exception as exc:  # noqa: BLE001 - the target raises it
            self.troubles.append(exc)

    def over(self, exchange: Exchange) -> None:
        if exchange in self.ended:
            self.troubles.append(AssertionError("a request ended twice"))
        self.ended.add(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            body = await exchange.body(1 << 20)
            status = 200
        except CorralError as exc:
            body, status = b"", exc.status  # of two faults either may be told
        told = f"{exchange.method} {exchange.raw_path!r} {exchange.query!r} {hashlib.sha1(body).hexdigest()}".encode()
        await exchange.respond(status, [(b"content-type", b"text/plain")], told)


_LOOP: list[asyncio.AbstractEventLoop] = []


def loop() -> asyncio.AbstractEventLoop:
    if not _LOOP or _LOOP[0].is_closed():
        _LOOP[:] = [asyncio.new_event_loop()]
    return _LOOP[0]


_DATE = re.compile(rb"date: [^\r]*\r\n|HTTP/1.1 100 Continue\r\n\r\n")
"""What depends on when it is said, or whether the body came before."""

_REFUSED = re.compile(rb"HTTP/1.1 4[^{]*\{\"error\".*\Z", re.DOTALL)
"""Of two faults in a head either may be told first."""


def connection(data: bytes) -> None:
    """A whole connection: answered in order and the same, in one piece or in many; then nothing is left behind."""
    whole, closed = loop().run_until_complete(_served([data]))
    cut, cut_closed = loop().run_until_complete(_served(list(pieces(data))))
    assert whole == cut, (whole[-400:], cut[-400:])
    assert closed == cut_closed


async def _served(parts: list[bytes]) -> tuple[bytes, bool]:
    echo, transport = _Echo(), _Transport()
    made = Connections(echo, Limits(linger_bytes=1 << 16))
    client = Connection(made)
    client.connection_made(transport)
    for part in parts:
        if transport.closed or not part:
            break
        client.data_received(part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    for _ in range(2000):  # a pipeline of many
        before = transport.sent
        for _ in range(5):
            await asyncio.sleep(0)
        if transport.sent == before:
            break
    sent, closed = transport.sent, transport.closed
    client.eof_received()
    client.connection_lost(None)
    for _ in range(8):
        await asyncio.sleep(0)
    if echo.troubles:
        raise echo.troubles[0]
    assert not echo.active and not list(made), "a request, or the connection, is not forgotten"
    return _REFUSED.sub(b"refused", _DATE.sub(b"", sent)), closed


# An engine's answer.


class _Engine:
    """A connection to an engine that says what it is made to say."""

    receiver: Any = None

    def listen(self) -> None: ...

    def pause(self) -> None: ...


def upstream(data: bytes) -> None:
    """An engine's answer: the same whole and in pieces, an error or a whole one; a head that is known says the same."""
    whole, in_pieces = (loop().run_until_complete(_answered(parts)) for parts in ([data], list(pieces(data))))
    assert whole == in_pieces, (whole, in_pieces)
    heads = EngineHeads()
    for _ in range(2):  # the second time it is known
        if (found := heads.find(data)) is None:
            continue
        answer, length, end = found
        if answer is None:
            continue
        status, fields, body, outcome = whole
        if outcome == "bad":
            continue  # which is found out later
        assert int(answer.status_line[9:12]) == status
        declared = [int(value) for name, value in fields if name.lower() == b"content-length"]
        assert declared == ([] if answer.events else [length])
        if not answer.events and outcome == "whole":
            assert data[end : end + length] == body


async def _answered(parts: list[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
    link: Any = _Engine()
    response = Response(link, False)
    for part in parts:
        response.received(part)
    response.lost(broken=False)
    got = b""
    try:
        await response.head()
        while piece := await response.read():
            got += piece
        return response.status, response.headers, got, "whole"
    except EngineError as exc:
        assert exc.hint
        return 0, [], b"", "bad"
    finally:
        response.forget()
