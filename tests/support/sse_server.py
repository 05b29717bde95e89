"""A small real server of OpenAI's chats and completions for tests of the load generator, as it is told to behave."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from corral.connection import Address


@dataclass
class Manner:
    """How it answers. `refuses` are fields for which it has a 400, `tokenizes` whether it has `/tokenize`."""

    usage: bool = True
    refuses: tuple[str, ...] = ()
    tokenizes: bool = True
    template: int = 5  # tokens that a chat has beside its words
    key: str = ""
    at_once: bool = False  # the whole stream leaves in one piece
    cut_after: int | None = None  # tokens, then the connection breaks
    fails: frozenset[int] = frozenset()  # numbers of requests that get a 500
    models: tuple[str, ...] = ("only",)
    seen: list[dict[str, Any]] = field(default_factory=list)  # bodies of chats, in the order they came
    open_now: int = 0
    open_most: int = 0


@asynccontextmanager
async def serving(manner: Manner, tls: ssl.SSLContext | None = None) -> AsyncIterator[Address]:
    """On a free port of loopback."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(manner, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield Address(port=server.sockets[0].getsockname()[1], tls=tls is not None)
    await asyncio.sleep(0)


async def _answer(manner: Manner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    target = head.split(" ")[1]
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = json.loads(await reader.readexactly(int(fields.get("content-length", 0))) or b"{}")
    if manner.key and fields.get("authorization") != f"bearer {manner.key.lower()}":
        return _plain(writer, 401, {"error": {"message": "no such key"}})
    if target.endswith("/v1/models"):
        return _plain(writer, 200, {"data": [{"id": name} for name in manner.models]})
    if target.endswith("/tokenize") and manner.tokenizes:
        return _plain(writer, 200, {"tokens": list(range(len(str(body["content"]).split())))})
    if not target.endswith(("/v1/chat/completions", "/v1/completions")):
        return _plain(writer, 404, {"error": {"message": "no such route"}})
    manner.seen.append(body)
    if refused := [name for name in manner.refuses if name in body]:
        return _plain(writer, 400, {"error": {"message": f"Unrecognized request argument: {refused[0]}"}})
    if len(manner.seen) - 1 in manner.fails:
        return _plain(writer, 500, {"error": {"message": "out of luck"}})
    manner.open_now += 1
    manner.open_most = max(manner.open_most, manner.open_now)
    try:
        await _stream(manner, body, writer)
    finally:
        manner.open_now -= 1
    return None


async def _stream(manner: Manner, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-corral-load-ms: 12.5\r\n\r\n")
    tokens = body.get("max_tokens") or body["max_completion_tokens"]
    chat = "messages" in body
    said = b""
    for number in range(tokens):
        if number == manner.cut_after:
            return
        word = {"delta": {"content": "w"}} if chat else {"text": "w"}
        event = {"choices": [{"index": 0, **word, "finish_reason": None}]}
        said += b"data: " + json.dumps(event).encode() + b"\n\n"
        if not manner.at_once:
            writer.write(said)
            await writer.drain()
            await asyncio.sleep(0.001)
            said = b""
    if manner.usage and "stream_options" in body:
        words = len((body["messages"][0]["content"] if chat else body["prompt"]).split()) + manner.template * chat
        usage = {"prompt_tokens": words, "completion_tokens": tokens, "total_tokens": words + tokens}
        said += b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    writer.write(said + b"data: [DONE]\n\n")
    await writer.drain()


def _plain(writer: asyncio.StreamWriter, status: int, value: Any) -> None:
    said = json.dumps(value).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n".encode() + said
    )
