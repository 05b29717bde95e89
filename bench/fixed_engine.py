"""A tiny engine whose answers are fixed bytes, so that what is measured beside it is the gateway.

`python -m bench.fixed_engine --model FILE --host PATH.sock …`: of llama-server's flags it looks at `--host`, and at
`--port` where that is an address.
POST answers a small completion, or with `"stream": true` as many events as `"max_tokens"` says: at once, or one every
`"pace_ms"`. GET /metrics answers a few counters. All connections are kept.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

HELP = """--model FNAME  model
--alias STRING  name
--host HOST  address, or a path that ends in .sock
--port PORT  port
--ctx-size N  context
--parallel N  slots
--metrics  figures at /metrics
"""
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"fixed","choices":[{"index":0,'
    b'"finish_reason":null,"delta":{"content":"word "}}]}\n\n'
)
ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"fixed","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"word"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,'
    b'"total_tokens":2}}'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STOP = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"fixed","choices":[{"index":0,'
    b'"finish_reason":"stop","delta":{}}],"timings":{"cache_n":0,"prompt_n":1,"prompt_ms":1.0,"predicted_n":8,'
    b'"predicted_ms":1.0}}\n\n'
)  # the last of llama.cpp's says what it took
LAST = b"%x\r\n%b\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" % (len(STOP), STOP)
TOLD = "".join(
    f"# HELP llamacpp:figure_{number}_total What it counts\n# TYPE llamacpp:figure_{number}_total counter\n"
    f"llamacpp:figure_{number}_total {number}\n"
    for number in range(16)
).encode()  # as many as llama.cpp has
METRICS = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(TOLD), TOLD)
UNARY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Fixed(asyncio.Protocol):
    """One connection. A request is taken to be well formed, and no second one to come before its answer."""

    def __init__(self) -> None:
        self._seen = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        seen = self._seen = self._seen + data if self._seen else data
        end = seen.find(b"\r\n\r\n") + 4
        if end < 4 or len(seen) < end + _number(rb"content-length: *(\d+)", seen[:end].lower(), 0):
            return
        self._seen = b""
        if seen.startswith(b"GET /metrics"):
            self._transport.write(METRICS)
            return
        if b'"stream": true' not in seen:
            self._transport.write(UNARY)
            return
        count, pace_ms = _number(rb'"max_tokens": (\d+)', seen, 8), _number(rb'"pace_ms": (\d+)', seen, 0)
        if not pace_ms:
            self._transport.write(STREAM + CHUNK * count + LAST)
            return
        self._transport.write(STREAM + CHUNK)
        loop = asyncio.get_running_loop()
        self._tick(loop, loop.time() + pace_ms / 1000, pace_ms / 1000, count - 1)

    def _tick(self, loop: asyncio.AbstractEventLoop, at: float, pace_s: float, left: int) -> None:
        self._timer = loop.call_at(at, self._next, loop, at + pace_s, pace_s, left)

    def _next(self, loop: asyncio.AbstractEventLoop, at: float, pace_s: float, left: int) -> None:
        self._transport.write(CHUNK if left else LAST)
        if left:
            self._tick(loop, at, pace_s, left - 1)


def _number(pattern: bytes, text: bytes, default: int) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else default


async def serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    if port:
        server = await loop.create_server(Fixed, host, port, backlog=1024)
    else:
        server = await loop.create_unix_server(Fixed, host, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(HELP)
    elif "--version" in sys.argv:
        print("version: 1 (fixed)")
    else:
        flags = dict(zip(sys.argv, sys.argv[1:], strict=False))
        host = flags["--host"]
        uvloop.run(serve(host, 0 if host.endswith(".sock") else int(flags["--port"])))
