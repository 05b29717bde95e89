"""Budgets against an engine that goes by llama.cpp's rules: whatever a body says, in whatever form and at whatever
path, what the engine writes is counted, and never more than the budget."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from corral.access.desk import Desk, Made
from corral.access.gate import AccessGate
from corral.access.keys import Limits
from corral.gateway.app import build
from corral.gateway.exchange import Exchange
from corral.gateway.listen import Listeners
from gateway.stable import Stable
from support.http import unix_request

ENGINE = Path(__file__).parents[1] / "support" / "ruled_engine.py"
REQUESTS = 200
BUDGET = 20_000

NUMBERS = st.one_of(
    st.integers(1, 60),
    st.sampled_from([0, 5.0, 7.9, -1, -2, None, True, "9", 1e300, 1 << 32, (1 << 32) - 1, 5 - (1 << 32), 10**30, [3]]),
)
BOUNDS = st.dictionaries(
    st.sampled_from(
        ["max_tokens", "n_predict", "max_completion_tokens", "max_output_tokens", "num_predict", "max_new_tokens",
         "max_tokens_to_sample"]
    ),
    NUMBERS, max_size=3,
)  # fmt: skip
AMOUNTS = st.dictionaries(
    st.sampled_from(["n", "n_cmpl", "best_of"]),
    st.sampled_from([1, 1, 2, 3, 2.9, "2", 2 - (1 << 32), None, 0, True, 99]), max_size=1,
)  # fmt: skip
NESTED = st.fixed_dictionaries(
    {}, optional={"options": st.just({"num_predict": 1}), "generation_config": st.just({"max_output_tokens": 1})}
)
ODD = st.fixed_dictionaries(
    {}, optional={"response_fields": st.just(["content"]), "messages": st.just([{"role": "user", "content": "hi"}])}
)
ONE = st.one_of(st.text("xyz ", max_size=20), st.just({"prompt_string": "hi"}), st.just([1, 2]), st.just([[3], "a"]))
PROMPTS = st.one_of(ONE, ONE, st.lists(ONE, max_size=6), st.just([1, "a", 2]), st.just([{"prompt_string": "hi"}] * 60))
CHATS = ("/v1/chat/completions", "/llamacpp/chat/completions", "/upstream/m/v1/chat/completions")
TEXTS = ("/v1/completions", "/llamacpp/completion", "/upstream/m/completion", "/upstream/m/v1/completions")
OTHERS = ("/upstream/m/v1/responses", "/upstream/m/v1/messages")


Request = tuple[str, dict[str, Any], float | None]


class Requests(list[Request]):
    """With a short word for it."""

    def __repr__(self) -> str:
        return f"{len(self)} requests"


@st.composite
def asked(draw: st.DrawFn) -> Request:
    """A path, a body, and after how many seconds the client leaves; None: it stays."""
    path = draw(st.sampled_from((*TEXTS, *TEXTS, *CHATS, *OTHERS)))
    body: dict[str, Any] = {"model": "m", "stream": draw(st.booleans())}
    for part in (BOUNDS, AMOUNTS, NESTED, ODD):
        body |= draw(part)
    if path in TEXTS:
        body["prompt"] = draw(PROMPTS)
    elif path in OTHERS:
        body["input"] = "hi"
    else:
        body["messages"] = [{"role": "user", "content": "hi"}]
    return path, body, draw(st.one_of(st.none(), st.none(), st.none(), st.floats(0.0, 0.2)))


class Spending:
    """A gateway over such an engine."""

    def __init__(self, stable: Stable, desk: Desk) -> None:
        self.stable, self.desk = stable, desk

    @property
    def active(self) -> list[Exchange]:
        return [exchange for listener in self.stable.listeners._open.values() for exchange in listener.app.active]

    async def written(self) -> int:
        """What the engine wrote since it started: answers, and one token of each prompt."""
        socket = self.stable.units_by_name["m"].socket
        stats = json.loads((await asyncio.to_thread(unix_request, socket, "GET", "/fake/stats"))[2])
        return int(stats.get("written", 0))

    async def key(self, **limits: int) -> Made:
        return await self.desk.create("k", ["infer"], [], Limits(**limits), None)

    def day(self, made: Made) -> int:
        return self.desk.taken(made.key).day or 0

    async def ask(
        self, made: Made, path: str, body: Mapping[str, Any], leaves_s: float | None = None
    ) -> tuple[int, bytes] | None:
        """The status and the body of the answer; None where it left before."""
        data = json.dumps(body).encode()
        (address,) = self.stable.listeners.addresses
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(
                b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (path.encode(), made.secret.encode(), len(data), data)
            )
            if leaves_s is not None:
                await asyncio.sleep(leaves_s)
                writer.transport.abort()
                return None
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1]), answer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def rest(self) -> None:
        await asyncio.gather(*(exchange.ending() for exchange in self.active))


@asynccontextmanager
async def opened(stable: Stable, book: Path) -> AsyncIterator[Spending]:
    stable.add_engine("m", (sys.executable, "-S", str(ENGINE)), listen="--listen", slots=8)
    desk = Desk(book)
    writing = asyncio.create_task(desk.run())
    stable.listeners = Listeners(build(stable, stable, gate=AccessGate(desk, lambda: stable.settings)))
    await stable.listeners.open(stable.settings)
    await stable.start("m")
    try:
        yield Spending(stable, desk)
    finally:
        await stable.listeners.close(5.0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await desk.close()


@pytest.fixture
async def spending(stable: Stable, tmp_path: Path) -> AsyncIterator[Spending]:
    async with opened(stable, tmp_path / "access.db") as made:
        yield made


@settings(
    max_examples=3, phases=[Phase.generate], suppress_health_check=[*HealthCheck], deadline=None
)  # each example starts two hundred requests
@given(requests=st.lists(asked(), min_size=REQUESTS, max_size=REQUESTS).map(Requests))
def test_what_an_engine_writes_is_counted_and_bounded(requests: Requests) -> None:
    """Two hundred requests at once, of any form: at every moment at most the budget is taken, and in the end what was
    counted is at least what the engine wrote."""
    asyncio.run(at_once(requests))


async def at_once(requests: Requests) -> None:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as folder:
        stable = Stable(Path(folder))
        try:
            async with opened(stable, Path(folder, "access.db")) as spending:
                await spend(spending, requests)
        finally:
            await stable.close()


async def spend(spending: Spending, requests: Requests) -> None:
    made = await spending.key(tokens_per_day=BUDGET)
    before, most = await spending.written(), 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, spending.day(made))
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(spending.ask(made, *request) for request in requests))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await spending.rest()
    statuses = [answer[0] for answer in answers if answer is not None]
    assert set(statuses) <= {200, 400, 429}, Counter(statuses)
    wrote = await spending.written() - before
    assert wrote <= spending.day(made) <= BUDGET
    assert most <= BUDGET
    assert spending.desk.taken(made.key).running == 0


HI = {"model": "m", "prompt": "hi"}
MANY = [{"prompt_string": "hi"}] * 60


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {**HI, "prompt": MANY, "max_tokens": 300}),
        ("/llamacpp/completion", {**HI, "prompt": MANY, "n_predict": 300}),
        ("/v1/completions", {**HI, "prompt": ["a", [1, 2], {"prompt_string": "x"}], "max_tokens": 999}),
        *(("/v1/completions", {**HI, **more}) for more in (
            {"max_tokens": 5, "n_predict": -1}, {"options": {"num_predict": 1}}, {"max_new_tokens": 1},
            {"max_tokens_to_sample": 1}, {"num_predict": 1}, {"max_output_tokens": 1},
        )),
        ("/llamacpp/completion", {**HI, "max_tokens": 1, "n_predict": -1}),
        ("/llamacpp/completion", {**HI, "max_output_tokens": 1}),
        ("/llamacpp/completion", {**HI, "n_predict": 250, "response_fields": ["content"]}),
        ("/llamacpp/completion", {**HI, "n_predict": 250, "response_fields": ["content"], "stream": True}),
        ("/upstream/m/v1/responses", {**HI, "input": "hi", "max_output_tokens": None, "max_tokens": 1}),
        ("/upstream/m/v1/messages", {**HI, "max_tokens": 250}),
        ("/upstream/m/v1/messages", {**HI, "max_tokens": 250, "stream": True}),
        ("/v1/completions", {**HI, "n": 2 - (1 << 32), "max_tokens": 290}),
    ],
)  # fmt: skip
async def test_no_form_of_a_request_gets_more(spending: Spending, path: str, body: dict[str, Any]) -> None:
    """The same request again and again, until the key may no more."""
    budget = 17_500 if body["prompt"] is MANY else 900
    made = await spending.key(tokens_per_day=budget)
    before = await spending.written()
    statuses = [answer[0] for _ in range(30) if (answer := await spending.ask(made, path, body)) is not None]
    assert statuses[-1] in (400, 429)
    assert await spending.written() - before <= spending.day(made) <= budget


async def test_what_cannot_be_bounded_is_refused_in_words(spending: Spending) -> None:
    """A number of answers that engines read in different ways; a key without limits may say it."""
    body = {**HI, "n": 2.9, "max_tokens": 5}
    answer = await spending.ask(await spending.key(tokens_per_day=900), "/v1/completions", body)
    assert answer is not None and answer[0] == 400 and b"n must be a whole number" in answer[1]
    answer = await spending.ask(await spending.key(), "/v1/completions", body)
    assert answer is not None and answer[0] == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "took"),
    [
        ("/v1/completions", {**HI, "prompt": ["hi", "ho", "hu", "he"], "max_tokens": 20}, (4, 80)),
        ("/v1/completions", {**HI, "prompt": ["hi", "ho"], "n": 2, "max_tokens": 20}, (2, 80)),
        ("/llamacpp/completion", {**HI, "prompt": ["hi", {"prompt_string": "ho"}], "n_predict": 20}, (2, 40)),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}], "n_cmpl": 3,
                                  "max_tokens": 7}, (1, 21)),
        ("/v1/completions", {**HI, "prompt": "hi", "n": 1, "max_tokens": 20}, (1, 20)),
        ("/v1/completions", {**HI, "prompt": [1, 2, 3], "max_tokens": 20}, (1, 20)),
    ],
)  # fmt: skip
async def test_all_answers_are_counted(
    spending: Spending, path: str, body: dict[str, Any], took: tuple[int, int], stream: bool
) -> None:
    """Of several prompts, and several answers to one, each; with a budget and without."""
    for limits in ({}, {"tokens_per_day": 100_000}):
        made = await spending.key(**limits)
        answer = await spending.ask(made, path, {**body, "stream": stream})
        assert answer is not None and answer[0] == 200
        await spending.rest()
        (used,) = (await spending.desk.usage("", made.key.id)).values()
        assert (used.prompt, used.completion) == took
