"""More answers to one chat request than its model's engine makes at once: asked for one after the other.

Each is a request of its own to the engine, with a lease of its own, so that callers take turns between them and each is
retried and resumed as any other. To its client and its key they are one: one answer, one record, and what all of them
may take is set aside before the first.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from corral.gateway.dialects import chat
from corral.gateway.dialects.several import Several, single
from corral.gateway.dialects.usage import said, usage_of
from corral.gateway.exchange import Exchange, Gathered
from corral.gateway.gate import Gate
from corral.gateway.http.headers import Fields


class Part(Gathered):
    """One of the answers: the events of a stream go to `asker`'s client as they come, anything else is gathered."""

    admitted = True

    def __init__(self, asker: Exchange, several: Several) -> None:
        super().__init__(asker)
        self._asker, self._several = asker, several
        self.head: Fields = []  # of a plain answer

    async def start(self, status: int, headers: Fields, *, events: bool = False) -> None:
        await super().start(status, headers, events=events)
        if events and not self._asker.answering:
            self._asker.extra = self.extra
            await self._asker.start(status, headers, events=True)

    async def respond(self, status: int, headers: Fields, body: bytes = b"") -> None:
        self.status, self.head, self.answer = status, headers, body
        self.started = self.ended = True

    def comment(self, events: bytes) -> None:
        self._asker.comment(events)

    def send(self, chunk: bytes) -> bool:
        if not self.events:
            return super().send(chunk)
        told = self._several.events(chunk)
        return self._asker.send(told) if told else True

    def _finish(self, chunk: bytes) -> None:
        self.send(chunk)
        self.ended = True

    async def drained(self) -> None:
        await self._asker.drained()


async def answer_several(
    exchange: Exchange,
    gate: Gate | None,
    model: str,
    request: dict[str, Any],
    number: int,
    send: Callable[[Exchange, dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers `exchange` with `number` answers of `model` to `request`; `send` has one of them made. Raises what the
    gate does, and `send`."""
    course, several = exchange.course, Several(request)
    ticket = None
    if gate is not None:
        ticket = gate.admit(exchange, model, json.dumps(request).encode(), "POST", "/v1/chat/completions")
    try:
        if ticket is not None and ticket.body is not None:
            request = chat.parsed(ticket.body) or request
        if ticket is not None and ticket.saved is not None:
            await ticket.saved
        for several.index in range(number):
            part, before = Part(exchange, several), course.chunks
            course.end = b""
            try:
                await send(part, single(request, several.index))
            finally:
                pieces = 0 if part.status >= 400 else course.chunks - before
                several.ended(usage_of(course.end), pieces)
            if part.status >= 400 and exchange.started:
                raise chat.refusal(part.status, chat.parsed(part.answer), part.answer)
            if part.status >= 400 or several.failed:
                break
            if not part.events:
                several.body(part.answer)
        if exchange.answering:
            await exchange.end(several.last())
        else:
            exchange.extra = part.extra
            await exchange.respond(part.status, part.head, part.answer if part.status >= 400 else several.whole())
    finally:
        if several.usage is not None:
            course.end = said(several.usage)
        if ticket is not None:
            took = several.usage
            ticket.settle(None if took is None else took._replace(answers=number), several.unsaid)
