"""The small questions, and the watch that asks them, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.engines.plan import Endpoint
from corral.supervisor import looks
from corral.supervisor.pulse import Pulses
from corral.supervisor.watch import Watch
from support.engines import until
from support.unit_world import World, world

HANG_S = 0.8


@asynccontextmanager
async def watched(w: World, pulses: Pulses | None = None) -> AsyncIterator[None]:
    watching = asyncio.create_task(Watch(lambda: [w.unit], pulses or Pulses(), lambda: HANG_S).run())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def hung(w: World) -> list[str]:
    return [event.data["evidence"] for event in w.events.since() if event.kind == "unit.hung"]


async def test_a_frozen_engine_is_killed_at_once(paths: Paths) -> None:
    """It is told as a hang with what showed it, not with how the kill looked; the stop timeout does not matter."""
    async with world(paths) as w, watched(w):
        await w.unit.start(w.model, 1)
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGSTOP)
        await w.told.until(lambda: bool(w.told.ended))
        assert len(hung(w)) == 1 and "no answer" in hung(w)[0]
        assert w.unit.reason is not None and "hung and was killed" in w.unit.reason
        assert w.unit.last_error is not None and w.unit.last_error.details["kind"] == "hang"
        assert w.state == "backoff" and w.unit.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a process that it is stopped")
async def test_one_that_freezes_while_it_loads_is_killed(paths: Paths) -> None:
    """A load that was stopped from outside is ended within the bound; a slow one is left alone."""
    async with world(paths, "--load-s", str(2 * HANG_S)) as w, watched(w):
        start = asyncio.create_task(w.unit.start(w.model, 1))
        await until(lambda: w.state == "loading", "the load")
        assert w.unit.running is not None and w.unit.running.pid is not None
        os.kill(w.unit.running.pid, signal.SIGSTOP)
        await start
        assert "stopped while it loaded" in hung(w)[0]
        [(_, _, error, _)] = w.told.ended
        assert error is None, "whoever waits goes on waiting"
        await w.unit.start(w.model, 2)
        assert w.state == "ready" and len(hung(w)) == 1


async def test_a_stream_that_stalls_is_a_hang(paths: Paths) -> None:
    """An engine that answers questions but makes no token for a running stream is killed."""
    pulses = Pulses()
    async with world(paths) as w, watched(w, pulses):
        await w.unit.start(w.model, 1)
        pulse = pulses.begin("m.1", 3, judged=True, stream=True)
        pulse.chunks = 1
        pulses.of("m.1").rates.take(1000.0, 100.0)
        await w.told.until(lambda: bool(w.told.ended))
        assert "nothing came of its work" in hung(w)[0]


async def test_what_runs_and_answers_is_left_alone(paths: Paths) -> None:
    """Neither a stream that goes on nor a request that is not judged ends an engine."""
    pulses = Pulses()
    async with world(paths) as w, watched(w, pulses):
        await w.unit.start(w.model, 1)
        pulses.begin("m.1", 3, judged=False)
        pulse = pulses.begin("m.1", 3, judged=True, stream=True)
        end = time.monotonic() + 1.5 * HANG_S
        while time.monotonic() < end:
            pulse.chunks += 1
            await asyncio.sleep(0.01)
        assert w.state == "ready" and not hung(w)


async def test_odd_health_and_a_token(paths: Paths) -> None:
    """One whose health is odd, but which makes a token when asked to, is left alone; one that does not is killed."""
    async with world(paths, "--health-status", "500") as w:
        await w.unit.start(w.model, 1)
        os.kill(w.unit.running.pid, signal.SIGUSR1)  # type: ignore[union-attr, arg-type]
        async with watched(w):
            await asyncio.sleep(HANG_S * 1.5)
            assert w.state == "ready" and not hung(w)
    async with world(paths, "--health-status", "500", "--answer-status", "500") as w:
        await w.unit.start(w.model, 1)
        os.kill(w.unit.running.pid, signal.SIGUSR1)  # type: ignore[union-attr, arg-type]
        async with watched(w):
            await w.told.until(lambda: bool(w.told.ended))
            assert "500" in hung(w)[0] and "no token" in hung(w)[0]


async def test_nobody_there(tmp_path: Path) -> None:
    """Where nothing listens there is no answer, and that is soon known."""
    nowhere = Endpoint(socket=tmp_path / "x.sock")
    assert await looks.health(nowhere, "/health", 5.0) is None
    assert await looks.counters(nowhere, 5.0) is None
    assert not await looks.token(nowhere, 5.0)
    assert await looks.health(Endpoint(port=1), "/health", 5.0) is None


async def test_late_itself(short_tmp: Path) -> None:
    """An answer that was there in time counts, also where the one who asks is late at every turn."""
    loop, late_s = asyncio.get_running_loop(), 0.03
    late = True

    def be_late() -> None:
        time.sleep(late_s)
        if late:
            loop.call_soon(be_late)

    with answering(short_tmp / "e.sock", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as endpoint:
        be_late()
        answers = [await looks.health(endpoint, "/health", late_s / 2) for _ in range(3)]
        late = False
    assert answers == [200] * 3


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[Endpoint]:
    """An engine in a thread of its own that says `answer` to everything."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    with caller:
                        caller.recv(4096)
                        caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint(socket=path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_answers_that_are_none(tmp_path: Path) -> None:
    """What is no HTTP, ends early or says nothing counts as no answer."""
    for said in (b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"):
        socket = tmp_path / f"{len(said)}.sock"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = said) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()

        async with await asyncio.start_unix_server(answer, socket):
            assert await looks.health(Endpoint(socket=socket), "/health", 5.0) is None


def test_counters_of_slots() -> None:
    """Each step of llama.cpp's changes a number; an answer of another kind has none."""
    slot = (
        b'[{"id":0,"is_processing":true,"id_task":%d,"n_prompt_tokens_processed":%d,"next_token":[{"n_decoded":%d}]}]'
    )
    seen = {looks.counters_in(slot % numbers) for numbers in ((1, 0, 0), (1, 2048, 0), (1, 2048, 1), (2, 0, 0))}
    assert len(seen) == 4 and None not in seen
    assert looks.counters_in(slot % (1, 2, 3)) == looks.counters_in(slot % (1, 2, 3))
    for other in (b"", b"{}", b"[1]", b'{"error":{"code":501}}'):
        assert looks.counters_in(other) is None


async def test_a_pulse_teaches_rates() -> None:
    """The engine's own timings are taken from the end of an answer; a slower figure counts more than a faster one."""
    pulses = Pulses()
    pulse = pulses.begin("m.1", 9, judged=True)
    assert pulse.learns
    timings = b'data: {"timings":{"cache_n":0,"prompt_n":%d,"prompt_ms":%d,"predicted_n":%d,"predicted_ms":%d}}\n\n'
    pulses.learn(pulse, timings % (1000, 1000, 100, 2000))
    rates = pulses.of("m.1").rates
    assert (rates.prompt_per_s, rates.write_per_s) == (1000.0, 50.0)
    dense = pulses.begin("m.2", 3000, judged=True)
    pulses.learn(dense, (timings % (1000, 1000, 100, 2000)).replace(b'"cache_n":0', b'"cache_n":2000'))
    assert pulses.of("m.2").rates.bytes_per_token == 1.0, "what was in the cache counts, as it does in the bytes"
    pulses.learn(pulse, timings % (1000, 2000, 1, 2000))
    assert (rates.prompt_per_s, rates.write_per_s) == (500.0, 50.0)
    pulses.learn(pulse, timings % (1000, 1000, 1, 2000) + b"data: [DONE]\n\n")
    assert rates.prompt_per_s == 550.0
    pulses.learn(pulse, b"no timings")
    assert rates.prompt_per_s == 550.0
    assert not pulses.begin("m.1", 9, judged=True).learns, "not with every answer"
    pulse.answered = True
    pulses.end(pulse)
    assert pulses.answered("m.1") == 1 and pulses.answered("m.2") == 0
