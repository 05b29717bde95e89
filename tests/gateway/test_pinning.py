"""Who may have a model stay for ever: through the gateway, with keys and without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
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
    """Up to a day, and as long as the model would stay by itself."""
    key = await asking.key("infer")
    status, _ = await asking.post(b"/v1/chat/completions", MESSAGES, b"x-corral-keep-alive: 20m\r\n" + key)
    assert status == 200
    assert asking.stable.keep_alives == [1200.0]
    asking.stable.keep_alives.clear()
    longest = b"x-corral-keep-alive: 24h\r\n"
    assert (await asking.post(b"/v1/chat/completions", MESSAGES, longest + key))[0] == 200
    assert asking.stable.keep_alives == [86_400.0]


LONG = [
    pytest.param(b"/v1/chat/completions", MESSAGES, b"x-corral-keep-alive: 100000h\r\n", 3.6e8, id="header"),
    pytest.param(b"/v1/chat/completions", MESSAGES, b"x-corral-keep-alive: 24.1h\r\n", 86_760.0, id="little more"),
    pytest.param(b"/ollama/api/chat", {**MESSAGES, "keep_alive": "100000h"}, b"", 3.6e8, id="ollama"),
    pytest.param(b"/ollama/api/generate", {"keep_alive": 1e300}, b"", FOR_EVER, id="ollama load"),
    pytest.param(b"/ollama/api/embed", {"input": "x", "keep_alive": "9999999999h"}, b"", FOR_EVER, id="embed"),
    pytest.param(b"/v1/chat/completions", MESSAGES, b"x-corral-keep-alive: 9999999999h\r\n", FOR_EVER, id="endless"),
]


@pytest.mark.parametrize(("path", "body", "fields", "kept_s"), LONG)
async def test_more_than_a_day_counts_as_for_ever(
    asking: Asking, path: bytes, body: dict[str, object], fields: bytes, kept_s: float
) -> None:
    """A key without admin is refused it; for others it is bounded, so that a moment can be named."""
    refused, answer = await asking.post(path, body, fields + await asking.key("infer"))
    assert refused == 403 and b"more than a day counts as that" in answer
    assert asking.stable.keep_alives == []
    await asking.post(path, body, fields + await asking.key("admin"))
    assert asking.stable.keep_alives.pop() == pytest.approx(kept_s)


@pytest.mark.parametrize("idle_s", [200_000.0, None])
async def test_as_long_as_the_model_stays_by_itself(asking: Asking, idle_s: float | None) -> None:
    """That takes nothing from anybody."""
    models = asking.stable.settings.models
    asking.stable.change(models={**models, "m": replace(models["m"], idle_timeout_s=idle_s)})
    key = await asking.key("infer")
    for field, status in ((b"190000s", 200), (b"-1", 200 if idle_s is None else 403)):
        said = b"x-corral-keep-alive: %b\r\n" % field
        assert (await asking.post(b"/v1/chat/completions", MESSAGES, said + key))[0] == status
