"""Budgets through the gateway and real sockets: many requests at once, of which some leave in the middle."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from corral.access.budget import period_of
from corral.access.desk import Desk
from corral.access.gate import AccessGate
from corral.access.keys import Key, Limits
from corral.clock import wall
from corral.gateway.app import build
from corral.gateway.exchange import Exchange
from corral.gateway.listen import Listeners
from gateway.stable import Stable
from gateway.wire import ask, connected, until
from support.http import unix_request

CHUNKS = 6
BUDGET = 40_000
CHAT = "/v1/chat/completions"


class Spending:
    """A gateway with a key that has a budget."""

    def __init__(self, stable: Stable, desk: Desk, key: Key, secret: str) -> None:
        self.stable, self.desk, self.key, self.secret = stable, desk, key, secret

    @property
    def active(self) -> list[Exchange]:
        """What is still being answered."""
        return [exchange for listener in self.stable.listeners._open.values() for exchange in listener.app.active]

    async def ask(self, chance: random.Random) -> int | None:
        """Asks once, with a bound or without, streamed or not; perhaps it leaves in between. The status, None when it
        left."""
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * chance.randint(1, 300)}]}
        more = {"max_tokens": chance.randint(CHUNKS, 900)} if chance.random() < 0.8 else {}
        data = json.dumps({**body, **more, "stream": chance.random() < 0.6}).encode()
        (address,) = self.stable.listeners.addresses
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
                b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (self.secret.encode(), len(data), data)
            )
            if chance.random() < 0.3:
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(chance.randint(1, 900)), chance.random() * 0.2)
                writer.transport.abort()
                return None
            answer = await reader.read()
            return int(answer.split(b" ", 2)[1])
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
async def spending(stable: Stable, tmp_path: Path) -> AsyncIterator[Spending]:
    stable.add("m", ("--chunks", str(CHUNKS), "--chunk-interval-ms", "2"), slots=8)
    desk = Desk(tmp_path / "access.db")
    writing = asyncio.create_task(desk.run())
    stable.listeners = Listeners(build(stable, stable, gate=AccessGate(desk, lambda: stable.settings)))
    await stable.listeners.open(stable.settings)
    await stable.start("m")  # its start is not what clients are to leave in the middle of here
    made = await desk.create("k", ["infer"], [], Limits(tokens_per_day=BUDGET), None)
    yield Spending(stable, desk, made.key, made.secret)
    await stable.listeners.close(5.0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await desk.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_spend_never_exceeds_a_budget(spending: Spending, seed: int) -> None:
    """Two hundred requests at once: what the engine really made is at most what was counted, and that is at most the
    budget, at every moment; in the end nothing is set aside, and the next small request is let in or told why not."""
    chance = random.Random(seed)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, spending.desk.taken(spending.key).day or 0)
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    statuses = await asyncio.gather(*(spending.ask(random.Random(chance.random())) for _ in range(200)))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert {status for status in statuses if status is not None} <= {200, 429}
    assert statuses.count(200) > 10 and statuses.count(429) > 0
    assert most <= BUDGET
    await asyncio.gather(*(exchange.ending() for exchange in spending.active))
    assert spending.desk.taken(spending.key).running == 0
    counted = spending.desk.taken(spending.key).day
    socket = spending.stable.units_by_name["m"].socket
    stats = json.loads((await asyncio.to_thread(unix_request, socket, "GET", "/fake/stats"))[2])
    made = stats["chunks"] + stats["requests"]  # one token of a prompt each
    assert counted is not None and made <= counted <= BUDGET
    (account,) = spending.desk._accounts.values()
    (budget,) = account.budgets
    assert budget.held == 0 and budget.period == period_of("day", wall())
    used = await spending.desk.usage()
    assert sum(each.requests for each in used.values()) >= statuses.count(200)


def body_of(number: int, *, most: int, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "m", "messages": messages, "n": number, "max_tokens": most, "stream": stream}


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_are_set_aside_at_once_and_counted_each(spending: Spending, stream: bool) -> None:
    """All of them fit a key's budget before the first is made; what they took in the end is what is counted, in one
    request."""
    key, desk, address = spending.key, spending.desk, spending.stable.address
    fields = {"authorization": f"Bearer {spending.secret}"}
    assert (await ask(address, "POST", CHAT, body_of(3, most=BUDGET // 2, stream=stream), fields)).status == 429
    assert (desk.taken(key).day, spending.stable.granted) == (0, 0)
    one = await ask(address, "POST", CHAT, body_of(1, most=900, stream=False), fields)
    prompt, written = (one.json["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion"))
    before = desk.taken(key).day or 0
    assert before == prompt + written
    asking = asyncio.create_task(ask(address, "POST", CHAT, body_of(3, most=900, stream=stream), fields))
    await until(lambda: (desk.taken(key).day or 0) - before > 3 * 900, "it is set aside")
    assert (await asking).status == 200
    await until(lambda: not desk.taken(key).running, "it is settled")
    assert (desk.taken(key).day or 0) - before == prompt + 3 * written
    used = await desk.usage()
    assert sum(each.requests for each in used.values()) == 2


async def test_who_leaves_several_answers_pays_for_those_that_were_made(spending: Spending) -> None:
    """And for what is known of the one that was being made; no other is."""
    key, desk, address = spending.key, spending.desk, spending.stable.address
    async with connected(address) as wire:
        body = body_of(50, most=100, stream=True)
        wire.request("POST", CHAT, body, {"authorization": f"Bearer {spending.secret}"})
        await wire.start()
        seen = b""
        while b'"index":2' not in seen:
            seen += await wire.piece()
        wire.drop()
    await until(lambda: not desk.taken(key).running and not spending.stable.held, "it is over")
    stats = json.loads(
        (await asyncio.to_thread(unix_request, spending.stable.units_by_name["m"].socket, "GET", "/fake/stats"))[2]
    )
    taken = desk.taken(key).day or 0
    assert 2 * CHUNKS < taken < 10 * CHUNKS
    assert stats["requests"] <= 5
    (account,) = desk._accounts.values()
    assert account.budgets[0].held == 0
