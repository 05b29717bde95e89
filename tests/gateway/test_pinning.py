"""Who may have a model stay for ever: through the gateway, with keys and without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from corral.access.desk import Desk
from corral.access.gate import AccessGate
from corral.access.keys import Limits, Scope
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from gateway.stable import Stable

FOR_EVER = float("inf")


class Asking:
    """A gateway, and a client with keys or without."""

    def __init__(self, stable: Stable, desk: Desk) -> None:
        self.stable, self._desk = stable, desk

    async def key(self, scope: Scope) -> bytes:
        made = await self._desk.create(scope, [scope], [], Limits(), None)
        return b"authorization: Bearer " + made.secret.encode() + b"\r\n"

    async def post(self, path: bytes, body: Mapping[str, object], fields: bytes = b"") -> tuple[int, bytes]:
        data = json.dumps({"model": "m", "stream": False, **body}).encode()
        (address,) = self.stable.listeners.addresses
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(
                b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n%bcontent-length: %d\r\n\r\n%b"
                % (path, fields, len(data), data)
            )
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        return int(answer.split(b" ", 2)[1]), answer


@pytest.fixture
async def asking(stable: Stable, tmp_path: Path) -> AsyncIterator[Asking]:
    stable.add("m", ("--chunks", "2"))
    desk = Desk(tmp_path / "access.db")
    writing = asyncio.create_task(desk.run())
    stable.listeners = Listeners(build(stable, stable, gate=AccessGate(desk, lambda: stable.settings)))
    await stable.listeners.open(stable.settings)
    yield Asking(stable, desk)
    await stable.listeners.close(5.0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await desk.close()


MESSAGES = {"messages": [{"role": "user", "content": "x"}]}
FIELD = b"x-corral-keep-alive: -1\r\n"
WAYS = [
    pytest.param(b"/v1/chat/completions", MESSAGES, FIELD, id="header"),
    pytest.param(b"/ollama/api/chat", {**MESSAGES, "keep_alive": -1}, b"", id="ollama"),
    pytest.param(b"/ollama/api/generate", {"keep_alive": "-1m"}, b"", id="ollama load"),
    pytest.param(b"/ollama/api/embed", {"input": "x", "keep_alive": -1}, b"", id="ollama embed"),
]


@pytest.mark.parametrize(("path", "body", "fields"), WAYS)
async def test_a_key_pins_only_with_the_scope_admin(
    asking: Asking, path: bytes, body: dict[str, object], fields: bytes
) -> None:
    """A key that is good for asking may not take a model's place for ever, and nothing is started for it; one with
    admin may, and so may whoever needs no key."""
    refused, answer = await asking.post(path, body, fields + await asking.key("infer"))
    assert refused == 403
    assert b"keeping a model loaded for ever needs a key with the scope admin" in answer
    assert asking.stable.keep_alives == []
    for key in (await asking.key("admin"), b""):
        await asking.post(path, body, fields + key)
        assert asking.stable.keep_alives.pop() == FOR_EVER
        asking.stable.keep_alives.clear()


async def test_a_key_may_say_how_long(asking: Asking) -> None:
    """Every duration that ends is anybody's to say."""
    key = await asking.key("infer")
    status, _ = await asking.post(b"/v1/chat/completions", MESSAGES, b"x-corral-keep-alive: 20m\r\n" + key)
    assert status == 200
    assert asking.stable.keep_alives == [1200.0]
