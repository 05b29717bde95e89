"""The load generator against a real server: so many at once, at a rate, and what servers do wrong."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from corral.access import certificates
from corral.connection import Address
from corral.errors import CallerError
from corral.measure.load import run
from corral.measure.work import Fields, Work
from support.sse_server import Manner, serving

WORK = Work("only", words=4, tokens=5)


async def test_so_many_at_once() -> None:
    """Never more than asked, all answered, counted by the server, each with a time for every piece."""
    manner = Manner()
    async with serving(manner) as address:
        found = await run(address, WORK, 3, 12)
    assert len(found.good) == 12 and manner.open_most == 3 and found.peak <= 3
    for shot in found.shots:
        assert (shot.tokens, shot.counted, len(shot.gaps)) == (5, True, 4)
        assert shot.ttft is not None and shot.latency is not None and 0 < shot.ttft <= shot.latency
        assert shot.connect > 0 and shot.headers == {"x-corral-load-ms": "12.5"}
    prompts = [each["messages"][0]["content"] for each in manner.seen]
    assert len(set(prompts)) == 12
    assert found.late is not None and found.late.busy > 0


async def test_at_a_rate() -> None:
    """Sent when they are due, not when others end: all are sent, the last at count / rate; and a bound is kept."""
    manner = Manner()
    async with serving(manner) as address:
        found = await run(address, WORK, 0, 10, rate=200.0)
        bounded = await run(address, WORK, 2, 10, rate=10_000.0)
    assert len(found.good) == 10 and found.rate == 200.0
    due = sorted(shot.due or 0.0 for shot in found.shots)
    began = sorted(shot.began for shot in found.shots)
    assert all(sent >= planned for planned, sent in zip(due, began, strict=True))
    assert due[-1] - due[0] <= 10 / 200 and found.late is not None and found.late.sent_p95_ms is not None
    assert len(bounded.good) == 10 and bounded.peak <= 2


async def test_without_usage() -> None:
    """Pieces are counted."""
    async with serving(Manner(usage=False)) as address:
        found = await run(address, WORK, 1, 2)
    assert [(shot.tokens, shot.counted, shot.prompt) for shot in found.good] == [(5, False, None)] * 2


async def test_what_servers_do_wrong_is_in_their_shots() -> None:
    """Refusals, cut streams, and nobody there: each says what it was, and the rest is measured."""
    async with serving(Manner(fails=frozenset({1}))) as address:
        found = await run(address, WORK, 1, 3)
    assert sorted(shot.problem for shot in found.shots) == ["", "", "500: out of luck"]
    async with serving(Manner(cut_after=2)) as address:
        cut = await run(address, WORK, 1, 1)
    assert cut.shots[0].problem == "the stream was cut" and cut.tokens_per_s == 0.0
    gone = await run(address, WORK, 1, 1)
    assert "nothing answers at" in gone.shots[0].problem


async def test_what_is_no_http_is_said() -> None:
    """Another protocol's server, one that answers at once without a stream, and one that closes."""

    async def answered(said: bytes) -> str:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(one, "127.0.0.1", 0) as server:
            found = await run(Address(port=server.sockets[0].getsockname()[1]), WORK, 1, 1)
        return found.shots[0].problem

    assert (await answered(b"SSH-2.0-OpenSSH\r\n")).startswith("no HTTP: ")
    assert await answered(b"") == "the connection was closed without an answer"
    plain = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    assert await answered(plain) == "the answer is no stream but application/json"
    assert await answered(b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy") == "503: busy"


async def test_tls(tmp_path: Path) -> None:
    """Checked against the authority that was named; without it not trusted, and nothing is sent."""
    files = certificates.init(tmp_path / "tls").files
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    manner = Manner(key="s3cret")
    async with serving(manner, context) as address:
        trusted = Address(port=address.port, tls=True, ca=str(files.ca), key="s3cret")
        found = await run(trusted, WORK, 2, 2)
        assert len(found.good) == 2
        unknown = await run(Address(port=address.port, tls=True, key="s3cret"), WORK, 1, 1)
        assert "certificate is not trusted" in unknown.shots[0].problem and len(manner.seen) == 2
        with pytest.raises(CallerError, match="cannot be used"):
            await run(Address(port=address.port, tls=True, ca=str(tmp_path / "none.pem")), WORK, 1, 1)


async def test_only_fields_that_are_asked() -> None:
    """What a server does not know is left out."""
    manner = Manner(refuses=("max_tokens", "ignore_eos"))
    work = Work("only", words=2, tokens=2, fields=Fields("max_completion_tokens", ignore_eos=False))
    async with serving(manner) as address:
        found = await run(address, work, 1, 1)
    assert len(found.good) == 1 and set(manner.seen[0]) == {
        "model", "messages", "stream", "stream_options", "max_completion_tokens"
    }  # fmt: skip
