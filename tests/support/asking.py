"""Asking a server over TCP or TLS with keys and odd headers, one request per connection, with the standard library."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error."""
        return str(self.json()["error"]["code"])


def ask(
    url: str, path: str, key: str | None = None, body: Any = None, *, tls: ssl.SSLContext | None = None, **headers: str
) -> Reply:
    """One answer; `x_y="z"` among `headers` is the field `x-y: z`, and `method` is what it is."""
    where = urlsplit(url)
    assert where.hostname is not None
    method = headers.pop("method", "GET" if body is None else "POST")
    connection: http.client.HTTPConnection
    if where.scheme == "https":
        connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=60, context=tls)
    else:
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        fields.setdefault("authorization", f"Bearer {key}")
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, fields)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


async def ask_async(url: str, path: str, key: str | None, body: Any) -> Reply:
    """The same among many at once."""
    where = urlsplit(url)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {where.netloc}\r\nconnection: close\r\ncontent-length: {len(data)}\r\n"
    if key is not None:
        head += f"x-api-key: {key}\r\n"
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(head.encode() + b"\r\n" + data)
        raw = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    first, _, rest = raw.partition(b"\r\n\r\n")
    lines = first.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") == "chunked":
        rest = b"".join(_chunks(rest))
    return Reply(int(lines[0].split(" ")[1]), headers, rest)


def _chunks(data: bytes) -> list[bytes]:
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return found


def tokens_of(reply: Reply) -> int:
    """What an answer says it took, plain or streamed."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return int(reply.json()["usage"]["total_tokens"])
    last = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    return next(int(each["usage"]["total_tokens"]) for each in reversed(last) if each.get("usage"))
