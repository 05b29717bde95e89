"""Heads and chunked bodies: never taken otherwise than llhttp takes them, and refused where it leaves the choice."""

from __future__ import annotations

import itertools
from typing import cast

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CallerError, HeadTooLarge
from corral.gateway.http.chunks import Chunks
from corral.gateway.http.head import MAX_FIELDS, MAX_HEAD_BYTES, Head
from corral.gateway.http.heads import MAX_BYTES, MOST, Heads
from corral.gateway.wire import Link, WireExchange

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted({min(each, len(data)) for each in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks) if b > a]


def read(data: bytes, at: list[int] | None = None) -> tuple[Head, bytes]:
    """The head of `data`, fed in pieces, and what follows it. Raises ValueError when it is not whole."""
    head, pieces = Head(), cut(data, at or [])
    for number, piece in enumerate(pieces):
        if end := head.feed(piece):
            return head, piece[end:] + b"".join(pieces[number + 1 :])
    raise ValueError("not whole")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"GET /a HTTP/1.1\nhost: x\n\n", "no valid"),
        (GET + b"a: b\nc: d\r\n\r\n", "no valid"),
        (GET + b"\n", "no valid"),
        (GET + b"a: b\r\n c\r\n\r\n", "no valid"),
        (GET + b"a: b\r\n\tc\r\n\r\n", "no valid"),
        (GET + b"a: b\x00c\r\n\r\n", "no valid"),
        (GET + b"a: b\rc\r\n\r\n", "no valid"),
        (GET + b"a : b\r\n\r\n", "no valid"),
        (GET + b"a(b: c\r\n\r\n", "no valid"),
        (GET + b": b\r\n\r\n", "no valid"),
        (GET + b"nothing\r\n\r\n", "no valid"),
        (b"GET /a HTTP/1.1\r\n host: x\r\n\r\n", "no valid"),
        (b"GET /\xe9 HTTP/1.1\r\nhost: x\r\n\r\n", "no valid"),
        (b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n", "no valid"),
        (b"GET /a HTTP/1.2\r\nhost: x\r\n\r\n", "no valid"),
        (b"BREW /a HTTP/1.1\r\nhost: x\r\n\r\n", "no valid"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no valid"),
        (b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n", "not spoken"),
        (b"GET /a HTTP/0.9\r\nhost: x\r\n\r\n", "not spoken"),
        (b"GET /a\r\n\r\n", "no"),
        (b"GET /a HTTP/1.1\r\n\r\n", "one Host"),
        (GET + b"host: x\r\n\r\n", "one Host"),
        (GET + b"Host: y\r\n\r\n", "one Host"),
        (b"GET /a HTTP/1.1\r\nhost: a/b\r\n\r\n", "no host"),
        (b"GET /a HTTP/1.1\r\nhost: a@b\r\n\r\n", "no host"),
        (b"GET /a HTTP/1.1\r\nhost: \xe9\r\n\r\n", "no host"),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", "no path"),
        (b"GET x:1 HTTP/1.1\r\nhost: x\r\n\r\n", "no"),
        (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", "no path"),
        (b"GET ftp://x/a HTTP/1.1\r\nhost: x\r\n\r\n", "no path"),
        (b"GET http://y/a HTTP/1.1\r\nhost: x\r\n\r\n", "two hosts"),
        (b"GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n", "fragment"),
        (POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "no valid"),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", "no valid"),
        (POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\n", "no valid"),
        (POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\n", "no valid"),
        (POST + b"content-length: 3, 3\r\n\r\n", "no valid"),
        (POST + b"content-length: +3\r\n\r\n", "no valid"),
        (POST + b"content-length: -3\r\n\r\n", "no valid"),
        (POST + b"content-length: 0x3\r\n\r\n", "no valid"),
        (POST + b"content-length:\r\n\r\n", "no valid"),
        (POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n", "no valid"),
        (POST + b"transfer-encoding: gzip\r\n\r\n", "coding"),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n", "coding"),
        (POST + b"transfer-encoding: chunked, chunked\r\n\r\n", "no valid"),
        (POST + b"transfer-encoding: xchunked\r\n\r\n", "coding"),
        (POST + b"transfer-encoding: chunked, identity\r\n\r\n", "no valid"),
        (POST + b"transfer-encoding:\r\n chunked\r\n\r\n", "no valid"),
        (b"POST /a HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "1.0"),
    ],
)
def test_what_others_might_read_otherwise_is_refused(head: bytes, words: str) -> None:
    """Each of the known ways to smuggle a request, or to say two things at once, is one error with a hint, however it
    is cut on its way."""
    for at in ([], [len(head) // 2], list(range(len(head)))):
        with pytest.raises(CallerError, match=words) as caught:
            read(head, at)
        assert caught.value.status == 400
        assert caught.value.hint


@pytest.mark.parametrize(
    ("head", "path", "query"),
    [
        (GET, "/a", b""),
        (b"GET /a%20b/%C3%A9?x=%20&y HTTP/1.1\r\nhost:\r\n", "/a b/é", b"x=%20&y"),
        (b"GET http://X:80/a?b HTTP/1.1\r\nhost: x:80\r\n", "/a", b"b"),
        (b"GET http://x HTTP/1.1\r\nhost: x\r\n", "/", b""),
        (b"GET http://x?y HTTP/1.1\r\nhost: x\r\n", "/", b"y"),
        (b"OPTIONS * HTTP/1.1\r\nhost: [::1]:80\r\n", "*", b""),
        (b"GET /a HTTP/1.0\r\n", "/a", b""),
    ],
)
def test_targets_are_read(head: bytes, path: str, query: bytes) -> None:
    """Paths, absolute forms of our own host, and the asterisk."""
    found, rest = read(head + b"\r\nnext")
    assert (found.path, found.query, rest) == (path, query, b"next")


@given(
    st.lists(st.tuples(st.sampled_from([b"A", b"x-b", b"Accept"]), st.binary(max_size=12)), max_size=6),
    st.lists(st.integers(0, 300), max_size=12),
    st.binary(max_size=40),
)
def test_a_head_is_the_same_however_it_is_cut(pairs: list[tuple[bytes, bytes]], at: list[int], after: bytes) -> None:
    """Fields come out in order, in lower case and stripped, and not a byte of what follows is touched."""
    values = [(name, bytes(b for b in value if b > 32 and b != 127)) for name, value in pairs]
    data = GET + b"".join(b"%b: %b \r\n" % each for each in values) + b"\r\n" + after
    head, rest = read(data, at)
    assert rest == after
    assert head.fields == [(b"host", b"x"), *((name.lower(), value) for name, value in values)]
    assert head.keep_alive


def test_a_head_is_bounded() -> None:
    """In bytes and in fields, whether it ends or not, in one piece or in many."""
    many = GET + b"".join(b"a%d: b\r\n" % number for number in range(MAX_FIELDS)) + b"\r\n"
    long = GET + b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n"
    target = b"GET /" + b"a" * MAX_HEAD_BYTES
    for data in (many, long, target):
        for at in ([], list(range(0, len(data), 1000))):
            with pytest.raises(HeadTooLarge) as caught:
                read(data, at)
            assert caught.value.status == 431


class Oracle:
    """llhttp's own reading of a chunked body."""

    def __init__(self) -> None:
        self.body = b""
        self.done = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


chunked = st.lists(
    st.sampled_from(
        [b"3\r\nabc\r\n", b"1;a=b\r\nx\r\n", b"0\r\n", b"\r\n", b"a: b\r\n", b"3\n", b"\n", b"\r", b"x", b" ", b"00",
         b"A\r\n0123456789\r\n", b"0\r\n\r\n", b";", b'1;a="b"\r\nx\r\n', b"fffffffffffffffff\r\n"]
    ) | st.binary(max_size=3),
    max_size=8,
).map(b"".join)  # fmt: skip


@given(chunked, st.lists(st.integers(0, 80), max_size=10))
def test_chunks_are_never_read_otherwise_than_by_llhttp(data: bytes, at: list[int]) -> None:
    """What we take as a whole message llhttp takes too, with the same bytes as body; what it refuses, we refuse."""
    chunks = Chunks()
    body: list[bytes] = []
    used, refused = 0, False
    try:
        for piece in cut(data, at):
            used += chunks.feed(piece, body)
    except CallerError as exc:
        refused = True
        assert exc.hint
    oracle = Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.feed_data(POST + b"transfer-encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(data[:used] if chunks.done else data)
    except httptools.HttpParserError:
        assert refused or not chunks.done
        return
    if not refused:
        assert chunks.done == oracle.done
        assert b"".join(body) == oracle.body


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_a_chunked_body_is_put_together(parts: list[bytes], at: list[int]) -> None:
    """Extensions and trailers are dropped, and what follows the message is left alone."""
    data = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nx-t: 1\r\n\r\n"
    chunks = Chunks()
    body: list[bytes] = []
    used = 0
    for piece in cut(data + b"GET /", at):
        used += chunks.feed(piece, body)
    assert chunks.done
    assert used == len(data)
    assert b"".join(body) == b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n", b"0x3\r\n", b"-1\r\n", b"+1\r\n", b" 3\r\n", b"3 \r\n", b"\r\n", b"3\nabc\n0\n\n", b"3\r\nabc\n",
        b"3\r\nabcd\r\n", b"3\r\nabcX", b"f" * 17 + b"\r\n", b"3;\r\n", b"3;a=\x00\r\n", b"1" * 2000,
        b"3;" + b"a" * 2000,
        b"0\r\nno colon\r\n", b"0\r\ncontent-length: 3\r\n", b"0\r\n" + b"a: b\r\n" * 40, b"0\r\na: " + b"b" * 2000,
    ],
)  # fmt: skip
def test_bad_chunks_are_refused(data: bytes) -> None:
    """Sizes, line ends, extensions and trailers that are not right, or endless."""
    for at in ([], list(range(len(data)))):
        chunks = Chunks()
        with pytest.raises(CallerError):
            for piece in cut(data, at):
                chunks.feed(piece, [])


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nX-Other: 5\r\n\r\n"


def test_a_known_head_is_not_read_again() -> None:
    """A head that differs from an earlier one in the length of the body only is the same head with that length."""
    heads = Heads()
    assert heads.find(HEAD % b"12") is None
    head = Head()
    assert head.feed(HEAD % b"12") == len(HEAD % b"12")
    heads.remember(HEAD % b"12", head)
    assert heads.find(HEAD % b"12" + b"body") == (head, 12, len(HEAD % b"12"))
    assert heads.find(HEAD % b"3456") == (head, 3456, len(HEAD % b"3456"))
    for other in (b"", b"-1", b"1 2", b"1\r\nContent-Length: 1", b"0x10", b"9" * 16):
        assert heads.find(HEAD % other) is None
    assert heads.find((HEAD % b"12").replace(b"X-Other: 5", b"X-Other: 6")) is None
    assert heads.find((HEAD % b"12")[:-2]) is None, "not all of it is there"


def test_known_heads_are_bounded() -> None:
    """However many different heads come, some hundreds of small ones are remembered, the newest."""
    heads = Heads()
    sent = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(MOST + 10)]
    for each in sent:
        head = Head()
        head.feed(each)
        heads.remember(each, head)
    assert sum(heads.find(each) is not None for each in sent) == MOST
    assert heads.find(sent[-1]) is not None
    large = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * MAX_BYTES)
    head = Head()
    head.feed(large)
    heads.remember(large, head)
    assert heads.find(large) is None


class Held:
    """As much of a connection as a body needs."""

    keep_alive = True
    peer = ""
    holds = False

    def hold(self, on: bool) -> None:
        self.holds = on


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_nobody_reads_yet_waits_in_the_kernel(chunked: bool) -> None:
    """One that will be read piece by piece is held back when it is ahead, also before its handler begins to read: it
    may have to wait for the store first. Read, it comes on."""
    megabyte = bytes(1 << 20)
    how = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (64 << 20)
    head, link = Head(), Held()
    assert head.feed(b"POST /x HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % how)
    exchange = WireExchange(cast(Link, link), head, head.length)
    exchange.piecewise = True
    sent = 0
    while not link.holds:
        assert sent < 8, "it is never held back"
        exchange.feed(b"%x\r\n%b\r\n" % (len(megabyte), megabyte) if chunked else megabyte)
        sent += 1
    pieces = exchange.pieces()
    assert len(await anext(pieces)) == sent << 20
    exchange.feed(b"%x\r\n%b\r\n" % (len(megabyte), megabyte) if chunked else megabyte)
    assert len(await anext(pieces)) == 1 << 20
    assert not link.holds
