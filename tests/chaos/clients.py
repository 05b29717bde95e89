"""Many clients that never stop asking, and what became of each request.

The models say their words in a circle, so every right answer is known to the letter.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PATIENCE_S = 60.0
"""A client that has waited so long for an answer's end counts as forgotten."""

LATE_S = 25.0
"""One that has waited so long is looked at: what its model's engine does meanwhile tells slow from stuck."""

REFUSED_PAUSE_S = 0.05
UNANSWERED_PAUSE_S = 0.2


class End(StrEnum):
    """How a request ended."""

    WHOLE = "whole"  # answered, with the right words
    REFUSED = "refused"  # an error, and nothing of an answer before it
    BROKEN_OFF = "broken off"  # a stream that ended with an error event
    CUT = "cut"  # a stream or an answer that ended without a word
    UNANSWERED = "unanswered"  # the connection could not be made, or ended before an answer began
    WRONG = "wrong"  # other words than the model's
    FORGOTTEN = "forgotten"  # nothing more came


@dataclass(frozen=True, slots=True)
class Want:
    """What is asked for: how many words, after a prompt of how many letters."""

    stream: bool
    words: int
    letters: int


SHORT = (Want(True, 6, 20), Want(False, 6, 20))
MIXES: dict[str, Sequence[Want]] = {
    "load": SHORT,
    "idle": SHORT,
    "swap": (*SHORT, Want(True, 20, 20)),
    "prefill": (Want(True, 2, 160), Want(False, 2, 160), Want(True, 4, 120)),
    "stream": (Want(True, 30, 20), Want(True, 60, 20), Want(True, 20, 40), Want(False, 20, 20)),
}
"""What the clients ask for while a fault of that phase is due: most of their time is spent there."""


@dataclass(slots=True)
class Outcome:
    """One request from its sending to its end. Times are of the wall clock, as the events' are."""

    number: int
    model: str
    want: Want
    began: float
    ended: float = 0.0
    first: float = 0.0  # when the answer's first byte came; 0 when none did
    end: End = End.FORGOTTEN
    status: int = 0
    code: str = ""
    detail: str = ""
    seen: str = ""  # of a late one: what was going on while it waited

    @property
    def took_s(self) -> float:
        return self.ended - self.began

    def __str__(self) -> str:
        said = f"{self.status} {self.code} {self.detail}".strip()
        kind = "stream" if self.want.stream else "plain"
        seen = f"; while it waited: {self.seen}" if self.seen else ""
        return (
            f"request {self.number} ({kind}, {self.model}) was {self.end} after {self.took_s:.2f} s: {said[:300]}{seen}"
        )


@dataclass
class Clients:
    """`count` tasks that ask again and again, of the models in `aims` (the more often named, the more often)."""

    count: int
    words: dict[str, Sequence[str]]
    seed: int
    address: tuple[str, int] = ("", 0)
    aims: Sequence[str] = ()
    mix: Sequence[Want] = SHORT
    asked: int = 0
    whole: int = 0
    streams: int = 0
    in_flight: dict[int, Outcome] = field(default_factory=dict)
    amiss: list[Outcome] = field(default_factory=list)
    """Every request that did not end whole."""
    slowest_s: float = 0.0
    look: Callable[[Outcome], Awaitable[str]] | None = None
    """Says what is going on around a late request."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _looks: set[asyncio.Task[None]] = field(default_factory=set)
    _running: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._client(i), name=f"client {i}") for i in range(self.count)]
        self._running.set()

    def rest(self) -> None:
        """No new requests until `go_on`."""
        self._running.clear()

    def go_on(self) -> None:
        self._running.set()

    async def close(self) -> None:
        tasks = [*self._tasks, *self._looks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def of(self, *models: str) -> set[int]:
        """The numbers of the requests under way for these models; for all without names."""
        return {n for n, outcome in self.in_flight.items() if not models or outcome.model in models}

    async def settled(self, numbers: set[int], within_s: float = PATIENCE_S + 5) -> None:
        """Returns once all of these have ended. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while numbers & self.in_flight.keys():
                self._ended.clear()
                await self._ended.wait()

    async def _client(self, index: int) -> None:
        chance = random.Random(f"{self.seed} {index}")
        while True:
            await self._running.wait()
            outcome = await self.ask(chance.choice(self.aims), chance.choice(self.mix), chance)
            if outcome.end is not End.WHOLE:
                pause_s = REFUSED_PAUSE_S if outcome.end is not End.UNANSWERED else UNANSWERED_PAUSE_S
                await asyncio.sleep(pause_s * (1 + chance.random()))

    async def ask(self, model: str, want: Want, chance: random.Random) -> Outcome:
        """One request, written down."""
        self.asked += 1
        outcome = Outcome(self.asked, model, want, time.time())
        self.in_flight[outcome.number] = outcome
        looks = asyncio.get_running_loop().call_later(LATE_S, self._late, outcome)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._exchange(outcome, chance.randbytes(want.letters // 2).hex())
        except TimeoutError:
            outcome.end = End.FORGOTTEN
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            outcome.end = End.CUT if outcome.status == 200 else End.UNANSWERED
            outcome.detail = f"{type(error).__name__}: {error}"
        finally:
            looks.cancel()
            outcome.ended = time.time()
            del self.in_flight[outcome.number]
            self._ended.set()
        self.streams += want.stream
        self.slowest_s = max(self.slowest_s, outcome.took_s)
        if outcome.seen:
            print(f"late: {outcome}", flush=True)
        if outcome.end is End.WHOLE:
            self.whole += 1
        else:
            self.amiss.append(outcome)
        return outcome

    def _late(self, outcome: Outcome) -> None:
        async def look(around: Callable[[Outcome], Awaitable[str]]) -> None:
            outcome.seen += f"after {time.time() - outcome.began:.0f} s {await around(outcome)}; "
            left_s = outcome.began + PATIENCE_S - time.time() - 2
            if outcome.number in self.in_flight and left_s > 0:
                asyncio.get_running_loop().call_later(min(LATE_S, left_s), self._late, outcome)

        if outcome.number in self.in_flight and self.look is not None:
            task = asyncio.create_task(look(self.look), name=f"look at request {outcome.number}")
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def _exchange(self, outcome: Outcome, prompt: str) -> None:
        want = outcome.want
        asked = {
            "model": outcome.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": want.words,
            "temperature": 0,
            "seed": 1,
            "stream": want.stream,
        }
        body = json.dumps(asked).encode()
        reader, writer = await asyncio.open_connection(*self.address, limit=1 << 20)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            status, headers = await read_head(reader)
            outcome.first, outcome.status = time.time(), status
            outcome.detail = headers.get("x-corral-unit", "")
            if status == 200 and headers.get("content-type", "").startswith("text/event-stream"):
                await self._stream(outcome, reader, headers)
                return
            answer = b"".join([part async for part in body_of(reader, headers)])
            if status != 200:
                error = json.loads(answer).get("error", {})
                outcome.end, outcome.code = End.REFUSED, str(error.get("code"))
                outcome.detail = str(error.get("message"))
                return
            self._judge(outcome, json.loads(answer)["choices"][0]["message"]["content"])
        finally:
            writer.close()

    async def _stream(self, outcome: Outcome, reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        said: list[str] = []
        outcome.end = End.CUT
        async for event in events_of(reader, headers):
            if event == "[DONE]":
                self._judge(outcome, "".join(said))
                continue
            data = json.loads(event)
            if "error" in data:
                outcome.end, outcome.code = End.BROKEN_OFF, str(data["error"].get("code"))
                outcome.detail = str(data["error"].get("message"))
                continue
            said += [choice["delta"].get("content") or "" for choice in data.get("choices", ())]

    def _judge(self, outcome: Outcome, said: str) -> None:
        right = " ".join(itertools.islice(itertools.cycle(self.words[outcome.model]), outcome.want.words))
        outcome.end = End.WHOLE if said == right else End.WRONG
        if outcome.end is End.WRONG:
            outcome.detail = f"said {said[:120]!r}, not {right[:120]!r}"


# HTTP, as much as is needed here.


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields}


async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body's pieces. Raises IncompleteReadError when it ends too early."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while piece := await reader.read(1 << 16):
            yield piece


async def events_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[str]:
    """The data of each server-sent event."""
    held = b""
    async for piece in body_of(reader, headers):
        *whole, held = (held + piece).split(b"\n\n")
        for event in whole:
            lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines).decode()


async def get(socket: Any, path: str) -> Any:
    """The JSON that a GET over the unix socket gives. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: corral\r\nConnection: close\r\n\r\n".encode())
        status, headers = await read_head(reader)
        body = b"".join([part async for part in body_of(reader, headers)])
        if status != 200:
            raise OSError(f"{path} was answered with {status}: {body[:500]!r}")
        return json.loads(body)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
