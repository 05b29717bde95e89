"""One life of the engine: load, warm up, report, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from corral.detector.batches import Batches
from corral.detector.server import Server
from corral.detector.service import Service
from corral.detector.session import Session
from corral.engines import exits
from corral.engines.detector_flags import Flags
from corral.engines.detector_folder import PIXEL_BYTES, Detector, read_detector

_MOST_DECODERS: Final = 4
_DRAIN_S: Final = 30.0
_MIB: Final = 1 << 20
_LONGEST_SOCKET_PATH: Final = 103

Say = Callable[[str], None]


def run(flags: Flags, say: Say) -> tuple[int, str]:
    """Serves until SIGTERM or SIGINT; the exit code and last words. Raises ModelFileError."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # while it loads, they end it at once
    warnings.filterwarnings("ignore", module="PIL")  # whoever sends odd pictures should not fill the log
    detector = read_detector(Path(flags.folder))
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = replace(flags, threads=flags.threads or processors)
    if (words := _bad_address(flags)) is not None:
        return exits.ADDRESS, words
    try:
        session = Session(flags)
        if session.runs_on != flags.provider:
            return exits.DEVICE, f"onnxruntime cannot run it on {flags.provider}; its lines above say why"
        largest = min(flags.max_batch, session.largest_batch or flags.max_batch)
        _warm_up(session, detector, flags, largest)
    except Exception as exc:  # noqa: BLE001 - onnxruntime's own exceptions share no class
        if isinstance(exc, MemoryError) or "allocat" in str(exc).lower():
            return exits.REFUSED, f"cannot allocate memory for {flags.model}: {exc}"[:1000]
        return exits.REFUSED, f"onnxruntime could not load {flags.model}: {exc}"[:1000]
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(flags, detector, session, largest, min(_MOST_DECODERS, processors), say))
    except OSError as exc:
        return exits.ADDRESS, f"cannot listen on {flags.host}: {exc.strerror or exc}"


def _warm_up(session: Session, detector: Detector, flags: Flags, largest: int) -> None:
    """One picture through the model, so that the first request is no slower; and in the log, as llama.cpp tells of
    its buffers, what the load took and what the largest batch will."""
    weights = detector.weights_bytes if detector.onnx is None else Path(flags.model).stat().st_size
    shape = (1, 3, detector.preprocessing.height, detector.preprocessing.width)
    before = _private_bytes()
    session.run(np.zeros(shape, np.float32))
    after = _private_bytes()
    each = max(0, after - before)
    compute = max(0, after - weights) + (largest - 1) * max(each, shape[2] * shape[3] * PIXEL_BYTES)
    for where, kind, size in (("CPU", "model", weights), ("CPU", "compute", compute)):
        sys.stderr.write(f"detector: {where:>10} {kind} buffer size = {size / _MIB:8.2f} MiB\n")


async def _serve(
    flags: Flags, detector: Detector, session: Session, largest: int, decoders: int, say: Say
) -> tuple[int, str]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[int, str]] = loop.create_future()

    def end(code: int, words: str) -> None:
        if not ended.done():
            ended.set_result((code, words))

    def stuck() -> None:
        say(f"a batch was not done within {flags.stuck_s:g} s: the engine ends itself")
        os._exit(exits.REFUSED)

    batches = Batches(session.run, largest=largest, window_s=flags.window_ms / 1000, stuck_s=flags.stuck_s, stuck=stuck)
    service = Service(flags, detector, batches, decoders)

    def coming(change: int) -> None:
        batches.expect(change) if change > 0 else batches.came(-change)

    server = Server(service.answer, flags.max_body, coming)
    listener = await _listen(loop, server, flags)
    worker = asyncio.create_task(batches.work(), name="batches")

    def lost(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            end(exits.REFUSED, f"nothing sees pictures any more: {task.exception()}")

    worker.add_done_callback(lost)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0, "stopped")
    say(f"ready on {session.runs_on}, {len(detector.labels)} labels, batches of up to {largest}")
    say("model loaded")
    try:
        code, words = await ended
        listener.close()
        if flags.host.endswith(".sock"):
            with contextlib.suppress(OSError):
                os.unlink(flags.host)  # noqa: PTH108
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await server.drain()
        return code, words
    finally:
        worker.cancel()
        service.close()
        batches.close()


async def _listen(loop: asyncio.AbstractEventLoop, server: Server, flags: Flags) -> asyncio.AbstractServer:
    if flags.host.endswith(".sock"):
        return await loop.create_unix_server(server.connection, flags.host, backlog=128)
    return await loop.create_server(server.connection, flags.host or "127.0.0.1", flags.port, backlog=128)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _bad_address(flags: Flags) -> str | None:
    """What is wrong with a socket's path, which the event loop would replace, or say less of."""
    if not flags.host.endswith(".sock"):
        return None
    if len(os.fsencode(flags.host)) > _LONGEST_SOCKET_PATH:
        return f"the socket path {flags.host} is longer than {_LONGEST_SOCKET_PATH} bytes"
    if os.path.lexists(flags.host):
        return f"the socket {flags.host} is there already; each start needs one of its own"
    if not os.access(os.path.dirname(flags.host) or ".", os.W_OK | os.X_OK):  # noqa: PTH120
        return f"the socket {flags.host} cannot be made: its directory is missing or not writable"
    return None


def _private_bytes() -> int:
    """Of this process, what is no file's; 0 where the platform does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            sizes = [int(line.split()[1]) * 1024 for line in file if line.startswith(("RssAnon:", "RssShmem:"))]
    except (OSError, ValueError):
        return 0
    return sum(sizes)
