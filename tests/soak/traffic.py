"""Requests in every dialect, whole or streamed, by clients that wait, leave, read slowly or ask wrongly."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.clients import body_of, read_head

PATIENCE_S = 90.0
PROMPT = "say your words"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a request is put, and what its answers say."""

    name: str
    path: str
    ask: Callable[[str, int], Json]
    plain: Callable[[Json], str]
    piece: Callable[[Json], str]  # of an event, or a line
    ends: Callable[[Json], bool]  # the event, or line, that must come last
    lines: bool = False  # NDJSON rather than events


def _chat(model: str, words: int) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": words, "temperature": 0}


def _delta(event: Json) -> str:
    return "".join(each["delta"].get("content") or "" for each in event.get("choices", ()) if "delta" in each)


def _finished(event: Json) -> bool:
    return event == {"done": True}  # what `[DONE]` is read as


def _openai(name: str, path: str) -> Dialect:
    return Dialect(name, path, _chat, lambda said: said["choices"][0]["message"]["content"], _delta, _finished)


def _options(words: int) -> Json:
    return {"num_predict": words, "temperature": 0}


DIALECTS: Sequence[Dialect] = (
    _openai("openai", "/v1/chat/completions"),
    _openai("docker", "/docker/engines/v1/chat/completions"),
    _openai("llamacpp", "/llamacpp/chat/completions"),
    Dialect(
        "responses", "/v1/responses",
        lambda model, words: {"model": model, "input": PROMPT, "max_output_tokens": words, "temperature": 0},
        lambda said: said["output"][0]["content"][0]["text"],
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
        lambda event: event["type"] in ("response.completed", "response.incomplete"),
    ),
    Dialect(
        "anthropic", "/anthropic/v1/messages", _chat,
        lambda said: "".join(block["text"] for block in said["content"]),
        lambda event: event["delta"].get("text", "") if event["type"] == "content_block_delta" else "",
        lambda event: event["type"] == "message_stop",
    ),
    Dialect(
        "ollama chat", "/ollama/api/chat",
        lambda model, words: {"model": model, "messages": [{"role": "user", "content": PROMPT}],
                              "options": _options(words)},
        lambda said: said["message"]["content"], lambda said: said["message"]["content"],
        lambda said: said["done"], lines=True,
    ),
    Dialect(
        "ollama generate", "/ollama/api/generate",
        lambda model, words: {"model": model, "prompt": PROMPT, "options": _options(words)},
        lambda said: said["response"], lambda said: said["response"], lambda said: said["done"], lines=True,
    ),
)  # fmt: skip

BEHAVIOURS = {"waits": 66, "leaves": 14, "reads slowly": 6, "asks wrongly": 14}
"""What clients do, and of a hundred how many."""

WRONG: Sequence[tuple[Callable[[Json], bytes], int]] = (
    (lambda asked: json.dumps(asked).encode()[:-3], 400),
    (lambda asked: json.dumps({**asked, "model": "nobody"}).encode(), 404),
    (lambda asked: b"\xff" + json.dumps(asked).encode(), 400),
    (lambda asked: b"[]", 400),
)
"""Bodies that are refused, and with which status."""


class Amiss(Exception):
    """An answer that is not the one that was due."""


@dataclass
class Traffic:
    """`count` clients that ask the models in `aims`, each answer judged to the letter."""

    count: int
    words: Mapping[str, Sequence[str]]
    seed: int
    address: tuple[str, int] = ("", 0)
    aims: Sequence[str] = ()
    done: Counter[tuple[str, str]] = field(default_factory=Counter)  # by dialect and behaviour
    amiss: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _going: bool = False

    def begin(self) -> None:
        self._going = True
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.count)]

    async def end(self) -> None:
        """Lets each client come to its end, which none may fail to within its patience."""
        self._going = False
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                self.amiss.append(f"a client broke: {result!r}")

    async def _client(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while self._going:
            dialect = chance.choice(DIALECTS)
            behaviour = chance.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))[0]
            await self.once(chance, chance.choice(self.aims), dialect, behaviour)

    async def once(self, chance: random.Random, model: str, dialect: Dialect, behaviour: str) -> None:
        words, stream = chance.choice((3, 6, 20)), chance.random() < 0.6
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ask(chance, model, dialect, behaviour, words, stream)
        except (Amiss, OSError, asyncio.IncompleteReadError, TimeoutError, ValueError, LookupError, TypeError) as exc:
            self.amiss.append(
                f"{dialect.name}, {model}, {behaviour}, stream {stream}: {type(exc).__name__}: {exc}"[:500]
            )
            print(self.amiss[-1], flush=True)
            await asyncio.sleep(0.2)
        self.done[dialect.name, behaviour] += 1

    async def _ask(
        self, chance: random.Random, model: str, dialect: Dialect, behaviour: str, words: int, stream: bool
    ) -> None:
        asked = {**dialect.ask(model, words), "stream": stream}
        due = 200
        data = json.dumps(asked).encode()
        if behaviour == "asks wrongly":
            spoil, due = chance.choice(WRONG)
            data = spoil(asked)
        reader, writer = await asyncio.open_connection(*self.address, limit=4096 if "slow" in behaviour else 1 << 20)
        try:
            head = (
                f"POST {dialect.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
            ).encode()
            if behaviour == "leaves":
                await self._leave(chance, reader, writer, head + data)
                return
            writer.write(head + data)
            status, headers = await read_head(reader)
            if "slow" in behaviour:
                await asyncio.sleep(chance.random())
            body = b"".join([piece async for piece in _paced(body_of(reader, headers), chance, behaviour)])
            if status != due:
                raise Amiss(f"{status} instead of {due}: {body[:300]!r}")
            if due == 200:
                self._judge(model, dialect, words, stream, body)
            elif b"error" not in body.lower():
                raise Amiss(f"an error without words: {body[:300]!r}")
        finally:
            writer.close()

    async def _leave(
        self, chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        """In the middle of its head or body, while it waits, or in the middle of the answer."""
        when = chance.randrange(4)
        writer.write(data if when > 1 else data[: chance.randrange(1, len(data))])
        await writer.drain()
        if when == 2:
            await asyncio.sleep(chance.random() * 0.3)
        elif when == 3:
            await reader.read(chance.randrange(1, 1000))
        if chance.random() < 0.5:
            writer.transport.abort()

    def _judge(self, model: str, dialect: Dialect, words: int, stream: bool, body: bytes) -> None:
        if not stream:
            said = dialect.plain(json.loads(body))
        else:
            pieces = body.splitlines() if dialect.lines else _events(body)
            found = [json.loads(each) if each != b"[DONE]" else {"done": True} for each in pieces]
            if not found or not dialect.ends(found[-1]):
                raise Amiss(f"the stream ends with {found[-1:]}")
            said = "".join(dialect.piece(each) for each in found if not _finished(each))
        right = " ".join(itertools.islice(itertools.cycle(self.words[model]), words))
        if said != right:
            raise Amiss(f"said {said[:120]!r}, not {right[:120]!r}")


def _events(body: bytes) -> list[bytes]:
    if body and not body.endswith(b"\n\n"):
        raise Amiss(f"the stream ends within an event: {body[-200:]!r}")
    lines = (line for event in body.split(b"\n\n") for line in event.split(b"\n"))
    return [line[5:].strip() for line in lines if line.startswith(b"data:")]


async def _paced(pieces: Any, chance: random.Random, behaviour: str) -> Any:
    async for piece in pieces:
        yield piece
        if "slow" in behaviour:
            await asyncio.sleep(chance.random() * 0.05)
