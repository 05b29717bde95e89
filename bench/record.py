"""What the record of a request costs on the hot path: the real fast path between a client and an engine that are only
objects, in turns with a recorder and without one."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.fixed_engine import UNARY
from bench.frame import Figure, main, percentile, sized
from bench.gateway import MODEL, request_bytes
from bench.serving import scratch
from corral.config.settings import ModelSettings
from corral.engines.plan import Endpoint
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from corral.gateway.path.fast_tasks import WithoutTask
from corral.gateway.path.link import Link
from corral.metrics.record import Recorder
from corral.scheduler.lease import Held, Lease
from gateway.stable import Lent, Stable

WHAT = (
    "Processor time of one thread. `record_us`: a small request with its record, less one without, each the lowest "
    "tenth of many short runs in turns: what other work on the machine adds is the same for both. `made_us`: making "
    "the record and leaving it, by itself. `request_us`: all of such a request but for its system calls."
)
EACH = 25


class Silent(asyncio.Transport):
    """A client that takes everything."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return True if name == "sslcontext" else default  # so that bytes are given to `write`

    def write(self, data: object) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0


class Answering:
    """An engine's socket that always has the same answer."""

    def __init__(self) -> None:
        self._ends = socket.socketpair()

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, most: int) -> bytes:
        return UNARY

    def close(self) -> None:
        for end in self._ends:
            end.close()


class Steady(Stable):
    """A model that is ready, with a slot free at any time."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.change(models={MODEL: ModelSettings(name=MODEL, source=Path("/nowhere.gguf"))})
        self.recorder = Recorder()
        self.endpoint = Endpoint(place / "engine.sock")
        self.listeners = Listeners(build(self, self, recorder=self.recorder))
        self._lent = Lent(Lease(MODEL, f"{MODEL}.1", 1, self.endpoint), lambda: None)

    def try_lease(self, model: str) -> Held | None:
        return self._lent


async def turns(place: Path, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Microseconds for a request with its record and without, and for a record alone, by round."""
    host, engine = Steady(place), Link(Answering())  # type: ignore[arg-type]
    await host.open()
    (listener,) = host.listeners._open.values()
    client = listener._connection()
    client.connection_made(Silent())
    assert listener.app.fast is not None
    means = listener.app.fast.means
    means.pool.give(host.endpoint, engine)
    request = request_bytes(max_tokens=1).replace(b"/v1/chat/completions", b"/v1/completions")
    with_it: list[float] = []
    without: list[float] = []
    alone: list[float] = []

    def run() -> float:
        began = time.thread_time()
        for _ in range(EACH):
            client.data_received(request)
            engine._readable()
        return (time.thread_time() - began) / EACH * 1e6

    try:
        run()
        client.data_received(request)
        exchange = client._exchange
        assert isinstance(exchange, WithoutTask), "it took the other way"
        engine._readable()
        for number in range(rounds):
            both = ((host.recorder, with_it), (None, without))
            for recorder, took in both if number % 2 else both[::-1]:
                means.recorder = recorder
                took.append(run())
            means.recorder = host.recorder
            began = time.thread_time()
            for _ in range(EACH):
                exchange._record("", UNARY, began)
            alone.append((time.thread_time() - began) / EACH * 1e6)
            if number:
                assert len(host.recorder.drain()) == 2 * EACH
            host.recorder.drain()
            await asyncio.sleep(0)
    finally:
        client.connection_lost(None)
        engine.close()
        await host.close()
    return with_it, without, alone


def measure(quick: bool) -> list[Figure]:
    with scratch() as place:
        with_it, without, alone = uvloop.run(turns(place, sized(quick, 3000, 300, 5)))
    low = [percentile(each, 10) for each in (with_it, without, alone)]
    return [
        Figure("record_us", low[0] - low[1], "≤ 2"),
        Figure("made_us", low[2], "", "made and left"),
        Figure("request_us", low[0], "", "without system calls"),
    ]


if __name__ == "__main__":
    sys.exit(main("record", WHAT, measure))
