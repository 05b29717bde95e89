"""The fast path: what is answered without a task is answered just so with one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.access.desk import Desk
from corral.access.gate import AccessGate
from corral.config.settings import Listen, ModelSettings
from corral.engines.plan import Endpoint
from corral.errors import CallerError, Stopping
from corral.gateway import connection
from corral.gateway.app import build
from corral.gateway.dialects.usage import Usage, usage_of
from corral.gateway.http.outbox import FEW, Outbox
from corral.gateway.listen import Listeners
from corral.gateway.path import fast_exchange, link
from corral.gateway.path.fast_heads import Answers
from corral.gateway.path.passage import Passage
from corral.gateway.path.peek import glance, peek
from corral.metrics.record import Record, Recorder
from corral.scheduler.lease import Held, Lease
from corral.tasks import loop_factory
from gateway.stable import Lent, Stable
from gateway.wire import Answer, ask, connected, until

loop_factory()().close()  # it makes a pipe of its own, once in a process: no test is to find it left behind

PATH = "/v1/completions"
HEAD = b"HTTP/1.1 200 OK\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes, more: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), more, data)


class Scripted:
    """An engine that answers its n-th request with the n-th script, the last one again and again. A script is pieces
    of bytes, after which it closes the connection, or not (`stays`); at None it waits for `go`."""

    def __init__(self, scripts: Sequence[Sequence[bytes | None]], stays: bool) -> None:
        self.scripts, self.stays = scripts, stays
        self.go = asyncio.Event()
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = 0  # connections that the other end closed
        self._tasks: set[asyncio.Task[None]] = set()

    def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                number = len(self.requests)
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.scripts[min(number, len(self.scripts) - 1)]:
                    if piece is None:
                        await self.go.wait()
                        continue
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not self.stays:
                    break
        self.left += 1
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def ended(self) -> None:
        await asyncio.gather(*self._tasks)


class Ready(Stable):
    """A gateway before one engine that is always ready."""

    def __init__(self, directory: Path, socket: Path, *, fast: bool, desk: Desk | None = None) -> None:
        super().__init__(directory)
        self.endpoint = Endpoint(socket)
        self.change(models={"m": ModelSettings(name="m", source=Path("/nowhere.gguf"), aliases=("n",))})
        self.recorder = Recorder()
        gate = AccessGate(desk, lambda: self.settings) if desk is not None else None
        self.listeners = Listeners(build(self, self, fast=fast, gate=gate, recorder=self.recorder))
        self.lost: list[str] = []

    def _lease(self) -> Lease:
        return Lease("m", "m.1", 1, self.endpoint)

    @asynccontextmanager
    async def lease(self, model: str, **more: object) -> AsyncIterator[Lease]:
        self.granted += 1
        yield self._lease()

    def try_lease(self, model: str) -> Held | None:
        self.at_once += 1
        self.held += 1
        return Lent(self._lease(), self._back)

    def _back(self) -> None:
        self.held -= 1

    def unit_gone(self, lease: Lease, why: str) -> None:
        self.lost.append(why)

    def unit_ails(self, lease: Lease, said: str) -> None:
        self.lost.append(said)

    async def blameless(self, lease: Lease) -> bool:
        return False


@asynccontextmanager
async def ready(engine: Scripted, *, fast: bool = True, desk: Desk | None = None) -> AsyncIterator[Ready]:
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/tmp") as made:
        path = Path(made) / "e.sock"
        server = await asyncio.start_unix_server(engine.connection, str(path))
        gateway = Ready(Path(made), path, fast=fast, desk=desk)
        await gateway.open()
        try:
            yield gateway
        finally:
            await gateway.close()
            server.close()
            await engine.ended()


@dataclass
class Case:
    """What a client sends, and what engines do."""

    body: bytes
    scripts: list[list[bytes]]
    stays: bool
    few: int = FEW


def _pieces(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    return [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True) if begin < end]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One engine's whole answer."""
    kind = draw(st.sampled_from(["plain", "plain", "events", "events", "events", "unframed", "chunked", "interim"]))
    fields = draw(st.sampled_from([b"", b"x-mine: 1\r\nserver: e\r\n", b"Connection: close\r\n", b"keep-alive: 5\r\n"]))
    status = draw(st.sampled_from([b"200 OK", b"200 OK", b"201 Created", b"404 Not Found", b"503 No", b"299 Odd"]))
    head = b"HTTP/1.1 %b\r\n%b" % (status, fields)
    if kind in ("plain", "interim", "chunked"):
        body = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 1, 1000]))
        if kind == "chunked":
            return head + b"transfer-encoding: chunked\r\n\r\n" + (chunk(body) if body else b"") + b"0\r\n\r\n"
        before = b"HTTP/1.1 100 Continue\r\n\r\n" if kind == "interim" else b""
        return before + head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)
    ends = st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\r\n\r\n"])
    events = [b"data: " + each.encode() + draw(ends) for each in draw(st.lists(text, max_size=6))]
    rest = draw(st.sampled_from([b"", b"", b"data: cut"]))
    if kind == "unframed":
        return head + b"content-type: text/event-stream\r\n\r\n" + b"".join(events) + rest
    blocks = draw(st.sampled_from([events, [b"".join(events)], *([] if not events else [_halves(events)])]))
    last = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nt: 1\r\n\r\n"]))
    more = draw(st.sampled_from([b"", b"", b";a=b"]))
    framed = b"".join(chunk(each, more) for each in [*blocks, rest] if each)
    return head + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + framed + last


def _halves(events: list[bytes]) -> list[bytes]:
    whole = b"".join(events)
    return [whole[: len(whole) // 2], whole[len(whole) // 2 :]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    scripts = []
    for _ in range(draw(st.integers(1, 3))):
        whole = draw(answers())
        if draw(st.sampled_from([False, False, True])):
            whole = whole[: draw(st.integers(0, len(whole)))]
        scripts.append(_pieces(draw, whole))
    model = draw(st.sampled_from([b'"m"', b'"m"', b'"n"', b'"nobody"', b"3"]))
    body = b'{"model": %b, "prompt": "h\xc3\xa9", "stream": true}' % model
    whole = draw(st.sampled_from([body, body, body[:-1]]))
    return Case(whole, scripts, stays=False, few=draw(st.sampled_from([0, FEW])))


def _told(answer: Answer) -> tuple[int, dict[str, str], bytes, bool]:
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status, headers, answer.body, answer.broken


def noted(record: Record) -> tuple[Record, bool, bool, Usage | None]:
    """A record but for its times, and for how its answer's end was cut into pieces."""
    bare = record._replace(began=0.0, ended=0.0, granted=None, first=None, chunks=0, end=b"")
    return bare, record.granted is not None, record.first is not None, usage_of(record.end)


async def _asked(case: Case, *, fast: bool) -> tuple[object, list[bytes], list[str], object]:
    engine = Scripted(case.scripts, case.stays)
    with few_at_once(case.few):
        return await _told_by(case, engine, fast=fast)


@contextlib.contextmanager
def few_at_once(few: int) -> Iterator[None]:
    """Beyond `few` running requests, what goes out waits for the end of the turn."""
    with mock.patch.object(fast_exchange, "FEW", few), mock.patch.object(connection, "FEW", few):
        yield


async def _told_by(case: Case, engine: Scripted, *, fast: bool) -> tuple[object, list[bytes], list[str], object]:
    async with ready(engine, fast=fast) as gateway:
        found = []
        async with connected(gateway.address) as wire:
            wire.request("POST", PATH, case.body, {"x-request-id": "one"})
            found.append(_told(await wire.rest()))
        found.append(_told(await ask(gateway.address, "POST", PATH, case.body, {"x-request-id": "two"})))
        await until(lambda: gateway.listeners.in_flight == 0 and gateway.held == 0, "nothing is held")
        records = [noted(record) for record in gateway.recorder.drain()]
        assert len(records) == len(found)
        return found, engine.requests, gateway.lost, records


@given(cases())
async def test_with_a_task_and_without_it_is_the_same(case: Case) -> None:
    """Whatever an engine does, and however its bytes come: the same answer, the same requests to it, the same said of
    it, the same record of it, and nothing is held in the end."""
    assert await _asked(case, fast=True) == await _asked(case, fast=False)


PLAIN = HEAD + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
TWO = [chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n")]
LAST = b"0\r\n\r\n"
BODY = {"model": "m", "prompt": "x", "stream": True}


async def test_a_plain_request_has_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of known length and streams in chunks, on one connection and on fresh ones, are given in callbacks."""

    def refused(*args: object) -> None:
        raise AssertionError("a task was made")

    monkeypatch.setattr(fast_exchange.FastExchange, "_run", refused)
    engine = Scripted([[PLAIN], [EVENTS, *TWO, LAST], [EVENTS + b"".join(TWO) + LAST]], stays=True)
    async with ready(engine) as gateway:
        async with connected(gateway.address) as wire:
            for body in (b"{}", b"data: 1\n\ndata: 2\n\n", b"data: 1\n\ndata: 2\n\n"):
                wire.request("POST", PATH, BODY)
                answer = await wire.rest()
                assert (answer.status, answer.body, answer.headers["x-corral-unit"]) == (200, body, "m.1")
                wire.http.start_next_cycle()
                wire.status = 0
        assert (await ask(gateway.address, "POST", PATH, BODY)).body == b"data: 1\n\ndata: 2\n\n"
        assert (gateway.at_once, gateway.held) == (4, 0)
        assert engine.connections == 1


async def test_an_engine_that_closes_after_streams_is_not_believed_twice() -> None:
    """The next request finds a fresh connection that was made for it; nothing is asked in vain."""
    engine = Scripted([[EVENTS, *TWO, LAST]], stays=False)
    async with ready(engine) as gateway:
        await ask(gateway.address, "POST", PATH, BODY)
        await until(lambda: engine.left == 1, "the engine closed it")
        for number in range(2, 5):
            assert (await ask(gateway.address, "POST", PATH, BODY)).body.endswith(b"data: 2\n\n")
            await until(lambda number=number: engine.connections >= number, "asked")
        await until(lambda: engine.connections == 5, "one is ready")
        assert len(engine.requests) == 4
        assert gateway.lost == []


async def test_a_stream_that_is_interrupted_says_why() -> None:
    """At a shutdown, what has begun gets an error event, and what has not an error; the engine is let go."""
    for pieces, status in (([EVENTS + TWO[0]], 200), ([], 503)):
        engine = Scripted([pieces], stays=True)
        async with ready(engine) as gateway, connected(gateway.address) as wire:
            wire.request("POST", PATH, BODY)
            if status == 200:
                await wire.start()
                assert await wire.piece()
            await until(lambda: gateway.held == 1 and len(engine.requests) == 1, "it runs")  # noqa: B023
            closing = asyncio.create_task(gateway.listeners.close(0.0))
            answer = await wire.rest()
            await closing
            assert (answer.status, answer.broken) == (status, False)
            error = answer.events[-1] if status == 200 else answer.body
            assert json.loads(error)["error"]["code"] == Stopping.code
            await until(lambda: gateway.held == 0 and engine.left == 1, "let go")  # noqa: B023


async def test_drain_waits_for_answers_without_tasks() -> None:
    """A listener that closes lets a running stream end."""
    engine = Scripted([[EVENTS + TWO[0], None, TWO[1], LAST]], stays=True)
    async with ready(engine) as gateway, connected(gateway.address) as wire:
        wire.request("POST", PATH, BODY)
        await wire.start()
        closing = asyncio.create_task(gateway.listeners.close(10.0))
        await asyncio.sleep(0.05)
        assert gateway.held == 1
        engine.go.set()
        answer = await wire.rest()
        await closing
        assert answer.body == b"data: 1\n\ndata: 2\n\n"
        assert not answer.broken


async def test_the_bound_of_a_body_holds() -> None:
    """Also when the same head was known before the bound was."""
    engine = Scripted([[PLAIN]], stays=True)
    async with ready(engine) as gateway, connected(gateway.address) as wire:
        for bound, status in ((1000, 200), (10, 413)):
            gateway.change(max_body_bytes=bound)
            wire.request("POST", PATH, BODY)
            assert (await wire.rest()).status == status
            if status == 200:
                wire.http.start_next_cycle()
                wire.status = 0


async def test_many_at_once_all_get_their_answers() -> None:
    """What is written together reaches whom it is for, whole, and in order where requests came without waiting."""
    engine = Scripted([[PLAIN]], stays=True)
    request = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\nx-request-id: %d-%d\r\n\r\n%b"
    body = json.dumps(BODY).encode()
    async with ready(engine) as gateway:
        host, port = gateway.address.host, gateway.address.port

        async def client(number: int) -> list[bytes]:
            reader, writer = await asyncio.open_connection(host, port)
            for turn in range(5):
                writer.write(request % (PATH.encode(), len(body), number, turn, body))
            found = []
            for _ in range(5):
                head = await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(2) == b"{}"
                found.append(head.split(b"x-request-id: ")[1].split(b"\r\n")[0])
            writer.close()
            await writer.wait_closed()
            return found

        for number, got in enumerate(await asyncio.gather(*(client(each) for each in range(20)))):
            assert got == [b"%d-%d" % (number, turn) for turn in range(5)]
        assert len(engine.requests) == 100
        assert gateway.held == 0


async def test_an_outbox_keeps_the_order_and_what_comes_meanwhile() -> None:
    """Everything goes out once, in the next turn at the latest."""
    outbox, sent = Outbox(), []

    class Sender:
        def __init__(self, number: int, then: Sender | None = None) -> None:
            self.number, self.then = number, then

        def let_out(self) -> None:
            sent.append(self.number)
            if self.then is not None:
                outbox.add(self.then)

    for each in (Sender(1), Sender(2, Sender(4)), Sender(3)):
        outbox.add(each)
    assert sent == []
    await asyncio.sleep(0)
    assert sent == [1, 2, 3]
    await asyncio.sleep(0)
    assert sent == [1, 2, 3, 4]


# What it is made of.


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 40)), st.data())
def test_a_passage_gives_whole_events_however_they_come(
    texts: list[bytes], sizes: list[int], data: st.DataObject
) -> None:
    """The events come out in order and unchanged, in right chunks, and no piece ends inside of one."""
    events = [b"data: " + text.replace(b"\n", b".").replace(b"\r", b".") + b"\n\n" for text in texts]
    whole, at, framed = b"".join(events), 0, b""
    for size in [*sizes, max(1, len(whole))]:
        framed += chunk(whole[at : at + size]) if whole[at : at + size] else b""
        at += size
    framed += LAST
    passage, got = Passage(), b""
    while framed:
        size = data.draw(st.integers(1, len(framed)))
        out, framed = passage.feed(framed[:size]), framed[size:]
        found = unframed(out)
        assert found == b"" or found.endswith(b"\n\n")
        got += found
    assert got == whole
    assert passage.done


def unframed(out: bytes) -> bytes:
    found = b""
    while out:
        size, _, out = out.partition(b"\r\n")
        found += out[: int(size, 16)]
        assert out[int(size, 16) :][:2] == b"\r\n"
        out = out[int(size, 16) + 2 :]
    return found


def test_heads_are_known_by_all_but_their_length() -> None:
    """The same head with another length is that head; one that differs in anything else is read anew."""
    answers = Answers()
    one = HEAD + b"a: b\r\nContent-Length: 5\r\nc: d\r\n\r\n"
    first, length, end = answers.find(one + b"hello")
    assert first is not None
    assert (length, end, first.lines, first.events, first.keeps) == (5, len(one), b"a: b\r\nc: d\r\n", False, True)
    again, length, end = answers.find(one.replace(b"5", b"12345"))
    assert (again is first, length, end) == (True, 12345, len(one) + 4)
    other, _, _ = answers.find(one.replace(b"c: d", b"c: e"))
    assert other is not None
    assert other.lines == b"a: b\r\nc: e\r\n"
    assert answers.find(one[:-1]) == (None, 0, -1)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\n",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"content-length: 99999999999999\r\n\r\n",
        HEAD + b"content-type: text/event-stream\r\ncontent-length: 5\r\n\r\n",
        HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        HEAD + b"content-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD.replace(b"1.1", b"1.0") + b"content-length: 5\r\n\r\n",
        HEAD.replace(b"200 OK", b"204 No Content") + b"\r\n",
        HEAD.replace(b"200 OK", b"100 Continue") + b"\r\n",
        HEAD.replace(b"200 OK", b"500 No") + b"content-length: 5\r\n\r\n",
        HEAD + b"\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_heads_that_are_not_plain_are_left_to_others(head: bytes) -> None:
    """Every other framing, every status that may tell of the engine, and what is no HTTP."""
    assert Answers().find(head) == (None, 0, len(head))


@given(
    st.text()
    | st.builds(
        json.dumps,
        st.dictionaries(st.sampled_from(["model", "stream", "m"]), st.text() | st.none() | st.booleans() | st.floats()),
    )
)
def test_a_glance_sees_what_peeking_does(text: str) -> None:
    """Or nothing."""
    body = text.encode(errors="surrogatepass")
    seen = glance(body)
    if seen is not None:
        found = peek(body)
        assert seen[:2] == (found.model, found.stream)
    else:
        with contextlib.suppress(CallerError):
            assert peek(body).inside > 1 or body[:1] != b"{"


async def test_a_connection_is_let_go_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was made ready holds a thread of its engine's, and is closed soon."""
    monkeypatch.setattr(link, "IDLE_S", 0.05)
    engine = Scripted([[EVENTS, *TWO, LAST]], stays=True)
    async with ready(engine) as gateway:
        await ask(gateway.address, "POST", PATH, BODY)
        await until(lambda: engine.left == engine.connections, "closed")
        assert gateway.address != Listen(port=0)
