"""An engine that misbehaves on request, for the faults that a real one cannot be asked for.

A program of its own (standard library only): `python fake_engine.py --listen /path/x.sock --chunks 5`. It speaks enough
of llama-server's HTTP for Corral to take it for one: `/health` (503 while loading), `/v1/models`, chat and text
completions (unary and SSE), embeddings; every other path is echoed. Each answer carries `fake`: the model named
in the request and the sha256 of its body, so that a test sees what really arrived. `GET /fake/stats` counts requests.
Like llama.cpp it advertises keep-alive but closes the connection after a streamed answer.
"""

from __future__ import annotations

import sys

sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio does without; a fifth of what starting one costs

import argparse  # noqa: E402
import asyncio  # noqa: E402
import contextlib  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

Headers = dict[str, str]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    flags = argparse.ArgumentParser(prog="fake_engine", description=__doc__)
    flags.add_argument("--listen", help="a unix socket's path")
    flags.add_argument("--port", type=int, help="a port on 127.0.0.1; 0 = any, printed as `listening on 127.0.0.1:N`")
    flags.add_argument("--load-s", type=float, default=0.0, help="answer 503 on everything for so long")
    flags.add_argument("--listen-after-s", type=float, default=0.0, help="do not even listen for so long")
    flags.add_argument("--ignore-term", action="store_true")
    flags.add_argument("--fork-child", action="store_true", help="leave a child that ignores TERM and holds the log")
    flags.add_argument("--fork-session", action="store_true", help="the same, in a session of its own")
    flags.add_argument("--exit-code", type=int, help="end at once with this code")
    flags.add_argument("--exit-signal", type=int, help="end at once by this signal")
    flags.add_argument("--say", action="append", default=[], help="print this line at start; may be repeated")
    flags.add_argument("--chunks", type=int, default=3, help="content chunks per answer")
    flags.add_argument("--chunk-interval-ms", type=float, default=0.0)
    flags.add_argument("--chunk-bytes", type=int, default=0, help="pad each chunk's content to this size")
    flags.add_argument("--die-after-chunks", type=int, help="end with code 70 after so many chunks of a stream")
    flags.add_argument("--die-of-requests", action="store_true", help="end with code 70 at the first request")
    flags.add_argument("--stall-after-chunks", type=int, help="say nothing more after so many chunks of a stream")
    flags.add_argument("--cut-after-chunks", type=int, help="close the connection after so many chunks of a stream")
    flags.add_argument("--drop-requests", type=int, default=0, help="close the first N requests without an answer")
    flags.add_argument("--answer-status", type=int, default=200, help="answer inference requests with this status")
    flags.add_argument("--answer-message", default="as told", help="with this message in the error")
    flags.add_argument("--error-event", help="answer streams with an error event of this message, after --chunks")
    flags.add_argument("--first-byte-s", type=float, default=0.0, help="wait so long before each answer's first byte")
    flags.add_argument(
        "--health-status", type=int, default=200, help="from SIGUSR1 on, answer /health with this status"
    )
    return flags.parse_known_args(argv)[0]


class FakeEngine:
    """One engine: its flags and what it has seen."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.ready_at = time.monotonic() + flags.load_s
        self.to_drop: int = flags.drop_requests
        self.odd = False
        self.stats = {"requests": 0, "active": 0, "max_active": 0, "aborted": 0, "finished": 0, "chunks": 0}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.request(reader, writer):
                pass
        writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in head[1:] if ":" in line)}
        body = await read_body(reader, headers)
        path = path.partition("?")[0]
        if path == "/fake/stats":
            return await answer(writer, 200, self.stats)
        if time.monotonic() < self.ready_at:
            return await answer(writer, 503, {"error": {"code": 503, "message": "Loading model"}})
        if path == "/health":
            status = self.flags.health_status if self.odd else 200
            return await answer(writer, status, {"status": "ok" if status == 200 else "odd"})
        if path in ("/v1/models", "/models"):
            return await answer(writer, 200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})
        if self.flags.die_of_requests:
            os._exit(70)
        if self.to_drop > 0:
            self.to_drop -= 1
            return False
        self.stats["requests"] += 1
        self.stats["active"] += 1
        self.stats["max_active"] = max(self.stats["max_active"], self.stats["active"])
        gone = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self.infer(method, path, headers, body, writer))
        try:
            # A byte may be the next pipelined request; nobody does that to an engine, so it counts as gone too.
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            finished = work.done() and work.exception() is None
            self.stats["finished" if finished else "aborted"] += 1
            if gone.done() or not finished:
                return False
            return work.result()
        finally:
            self.stats["active"] -= 1
            for each in (gone, work):
                each.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def infer(self, method: str, path: str, headers: Headers, body: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(self.flags.first_byte_s)
        try:
            asked: Any = json.loads(body) if body else {}
        except ValueError:
            return await answer(writer, 400, {"error": {"code": 400, "message": "not JSON"}})
        asked = asked if isinstance(asked, dict) else {}
        seen = {"model": asked.get("model"), "body_sha256": hashlib.sha256(body).hexdigest(), "body_bytes": len(body)}
        if self.flags.answer_status != 200:
            error = {"error": {"code": self.flags.answer_status, "message": self.flags.answer_message}, "fake": seen}
            return await answer(writer, self.flags.answer_status, error)
        base = {"id": "fake-1", "created": 0, "model": asked.get("model"), "fake": seen}
        usage = {"prompt_tokens": 1, "completion_tokens": self.flags.chunks, "total_tokens": 1 + self.flags.chunks}
        chat = path.endswith("/chat/completions")
        if chat or path.endswith("/completions"):
            if asked.get("stream"):
                return await self.stream(writer, base, usage, chat, bool(asked.get("stream_options")))
            for _ in range(self.flags.chunks):
                await asyncio.sleep(self.flags.chunk_interval_ms / 1000)
            text = "".join(self.word(i) for i in range(self.flags.chunks))
            choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            kind = "chat.completion" if chat else "text_completion"
            choices = [{"index": 0, "finish_reason": "stop", **choice}]
            return await answer(writer, 200, {**base, "object": kind, "choices": choices, "usage": usage})
        if path.endswith("/embeddings"):
            inputs = asked.get("input", "")
            count = len(inputs) if isinstance(inputs, list) else 1
            data = [{"object": "embedding", "index": i, "embedding": [0.0, 0.6, 0.8]} for i in range(count)]
            return await answer(writer, 200, {**base, "object": "list", "data": data, "usage": usage})
        return await answer(writer, 200, {**base, "method": method, "path": path, "headers": headers})

    async def stream(
        self, writer: asyncio.StreamWriter, base: dict[str, Any], usage: dict[str, int], chat: bool, with_usage: bool
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nServer: fake\r\nContent-Type: text/event-stream\r\n"
            b"Keep-Alive: timeout=5, max=100\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        kind = "chat.completion.chunk" if chat else "text_completion"

        async def event(choice: dict[str, Any] | None, **more: Any) -> None:
            choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
            await send_chunk(writer, sse({**base, "object": kind, "choices": choices, **more}))

        if chat:
            await event({"delta": {"role": "assistant", "content": None}})
        for i in range(self.flags.chunks):
            if i == self.flags.die_after_chunks:
                await writer.drain()
                os._exit(70)
            if i == self.flags.stall_after_chunks:
                await asyncio.Event().wait()
            if i == self.flags.cut_after_chunks:
                writer.transport.abort()
                return False
            await asyncio.sleep(self.flags.chunk_interval_ms / 1000)
            word = self.word(i)
            await event({"delta": {"content": word}} if chat else {"text": word})
            self.stats["chunks"] += 1
        if self.flags.error_event is not None:
            error = {"error": {"code": 500, "message": self.flags.error_event, "type": "server_error"}}
            await send_chunk(writer, sse(error))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return False
        await event({"delta": {}, "finish_reason": "stop"} if chat else {"text": "", "finish_reason": "stop"})
        if with_usage:
            await event(None, usage=usage)
        await send_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False

    def word(self, index: int) -> str:
        return f"w{index} ".ljust(self.flags.chunk_bytes, "·")


async def read_body(reader: asyncio.StreamReader, headers: Headers) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(parts)


def sse(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


async def answer(writer: asyncio.StreamWriter, status: int, data: Any) -> bool:
    body = json.dumps(data, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status} Fake\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True


def leave_child(own_session: bool) -> None:
    """Forks a child that ignores TERM, keeps our output open and prints `child pid N`."""
    if os.fork() == 0:
        if own_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"child pid {os.getpid()}", flush=True)
        while True:
            signal.pause()


async def serve(flags: argparse.Namespace, engine: FakeEngine) -> NoReturn:
    await asyncio.sleep(flags.listen_after_s)

    def become_odd() -> None:
        engine.odd = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, become_odd)
    if flags.listen:
        await asyncio.start_unix_server(engine.connection, flags.listen, limit=1 << 20)
        print(f"listening on {flags.listen}", flush=True)
    else:
        server = await asyncio.start_server(engine.connection, "127.0.0.1", flags.port or 0, limit=1 << 20)
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets was set")


def main(argv: list[str] | None = None, engine: type[FakeEngine] = FakeEngine) -> NoReturn:
    flags = parse(argv)
    if flags.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ignoring TERM", flush=True)
    if flags.fork_child or flags.fork_session:
        leave_child(flags.fork_session)
    for line in flags.say:
        print(line, flush=True)
    if flags.exit_code is not None:
        sys.exit(flags.exit_code)
    if flags.exit_signal is not None:
        os.kill(os.getpid(), flags.exit_signal)
    asyncio.run(serve(flags, engine(flags)))
    raise AssertionError("serving ended")


if __name__ == "__main__":
    main()
