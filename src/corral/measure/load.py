"""The load generator: so many streamed chats at once to one address, each timed to its first token and its end."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from corral.connection import Address
from corral.measure.curve import Run, Shot

WITHIN_S: Final = 600.0
_WORDS: Final = (
    "river", "stone", "window", "letter", "garden", "bridge", "market", "winter", "table", "music", "doctor", "forest",
    "number", "village", "silver", "engine", "paper", "morning", "captain", "shadow", "yellow", "kitchen", "thunder",
    "pocket", "summer", "mountain", "island", "mirror", "candle", "station",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """What each request asks. Prompts differ from the first word on, so that nothing is answered from a cache."""

    model: str
    words: int = 128  # of the prompt
    tokens: int = 64  # of the answer, always all of them

    def body(self, chance: random.Random) -> bytes:
        prompt = " ".join(chance.choice(_WORDS) for _ in range(self.words))
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"{chance.randrange(10**9)} {prompt}"}],
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(asked).encode()


async def run(address: Address, work: Work, level: int, requests: int, *, seed: int = 0) -> Run:
    """`requests` of them, `level` at once. What goes wrong is in its shot."""
    todo = iter(range(requests))
    shots: list[Shot] = []

    async def line() -> None:
        for number in todo:
            shots.append(await _shot(address, work.body(random.Random(f"{seed} {level} {number}"))))

    async with asyncio.TaskGroup() as group:
        for _ in range(level):
            group.create_task(line())
    return Run(level, tuple(shots))


async def _shot(address: Address, body: bytes) -> Shot:
    began = time.perf_counter()
    seen = _Answer(began)
    try:
        async with asyncio.timeout(WITHIN_S):
            await _ask(address, body, seen)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        seen.problem = seen.problem or f"{type(error).__name__}: {error}"
    if not seen.problem and not seen.done:
        seen.problem = "the stream was cut"
    return Shot(began, time.perf_counter(), seen.first, seen.tokens or seen.pieces, seen.problem)


class _Answer:
    def __init__(self, began: float) -> None:
        self.began = began
        self.first: float | None = None
        self.tokens = self.pieces = 0
        self.done, self.problem = False, ""

    def event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            self.problem = str(chunk["error"].get("message", chunk["error"]))[:200]
            return
        if chunk.get("usage"):
            self.tokens = int(chunk["usage"].get("completion_tokens") or 0)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if (delta.get("content") is not None and not delta.get("role")) or delta.get("reasoning_content"):
                self.first = self.first or time.perf_counter()
                self.pieces += 1


async def _ask(address: Address, body: bytes, seen: _Answer) -> None:
    writer: asyncio.StreamWriter | None = None
    try:
        if address.socket is not None:
            reader, writer = await asyncio.open_unix_connection(str(address.socket))
        else:
            context = ssl.create_default_context(cafile=address.ca) if address.tls else None
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        key = f"authorization: Bearer {address.key}\r\n" if address.key and address.socket is None else ""
        writer.write(
            f"POST {address.base}/v1/chat/completions HTTP/1.1\r\nhost: {address.host}\r\n{key}connection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await _read(reader, seen)
    finally:
        if writer is not None:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, seen: _Answer) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, chunked = int(head.split(" ", 2)[1]), "transfer-encoding: chunked" in head
    if status != 200:
        said = await reader.read(2000)
        seen.problem = f"{status}: {said.decode(errors='replace')[:200]}"
        return
    rest = b""
    while not seen.done and not seen.problem:
        if chunked:
            size = int((await reader.readline()).split(b";")[0], 16)
            piece = (await reader.readexactly(size + 2))[:-2] if size else b""
        else:
            piece = await reader.read(1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for each in lines:
            if each.startswith(b"data:"):
                seen.event(each[5:].strip())
