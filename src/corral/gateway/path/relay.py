"""Relaying: an engine's answer to its client, byte for byte or in another dialect."""

from __future__ import annotations

from corral.errors import EngineError
from corral.gateway.dialects import chat
from corral.gateway.dialects.dialect import Translation, kept
from corral.gateway.dialects.explained import explained
from corral.gateway.exchange import Exchange
from corral.gateway.http import headers as fields
from corral.gateway.http import sse
from corral.gateway.http.sse import TAIL_BYTES, Splitter
from corral.gateway.path import upstream
from corral.gateway.path.again import Tries, ailment, healthy
from corral.gateway.path.passing import Passing
from corral.scheduler.lease import Lease
from corral.supervisor.pulse import Pulse

HELD_BYTES = 4 << 20
"""A plain answer up to this size is held until it is whole: if its engine dies, nothing of it was sent yet."""

MAX_TRANSLATED_BYTES = 256 << 20
"""A plain answer that is to be translated has to be held as a whole."""


class Relay:
    """One answer of one engine on its way to the client of `exchange`.

    Every event of a stream goes through `passing`, and through `translation` where there is one. Nothing is sent before
    `tries` has had a look at what tells of the engine's own health.
    """

    def __init__(
        self,
        exchange: Exchange,
        lease: Lease,
        tries: Tries,
        response: upstream.Response,
        pulse: Pulse,
        translation: Translation | None,
        passing: Passing,
    ) -> None:
        self._exchange, self._lease, self._tries = exchange, lease, tries
        self._response, self._pulse, self._passing = response, pulse, passing
        self._translation = translation
        self._head = fields.downward(response.headers) + fields.of_lease(lease)

    async def run(self) -> bytes:
        """The end of what the engine sent, as much as a stream's tail has. Raises what `tries` makes of an answer that
        tells of its engine, before anything of it is sent, and what a translation raises."""
        response, translation = self._response, self._translation
        kind = fields.first(response.headers, b"content-type") or b""
        coding = fields.first(response.headers, b"content-encoding")
        if (
            kind[:17].lower() == b"text/event-stream"
            and coding in (None, b"identity")
            and self._exchange.method != "HEAD"
        ):
            self._pulse.stream = True
            return await (self._events() if translation is None else self._translated_events(translation))
        if (error := self._passing.not_events(response.status)) is not None:
            raise error
        return await (self._plain() if translation is None else self._translated_plain(translation))

    async def _begin(self) -> None:
        await self._exchange.start(self._response.status, self._head, events=True)

    async def _write(self, data: bytes) -> None:
        self._pulse.held = True
        await self._exchange.write(data)
        self._pulse.held = False

    def _called(self, kind: bytes) -> None:
        """Gives the answer another content type."""
        self._head = [*(field for field in self._head if field[0] != b"content-type"), (b"content-type", kind)]

    async def _events(self) -> bytes:
        """The head goes out with the first whole event, so that until then the request can be tried again."""
        exchange, response, pulse, passing = self._exchange, self._response, self._pulse, self._passing
        splitter = Splitter()
        while not exchange.answering and (chunk := await response.read()):
            pulse.chunks += 1
            if whole := splitter.feed(chunk):
                self._tries.check_event(self._lease, whole)
                whole, ill = healthy(whole) if passing.resumes else (whole, "")
                if whole := passing.first(whole):
                    await self._begin()
                    await exchange.write(whole)
                if ill:
                    raise ailment(self._lease, ill)
        feed, send, through, out, resumes = splitter.feed, exchange.send, passing.through, passing.out, passing.resumes

        def relay(chunk: bytes) -> bool:
            pulse.chunks += 1
            whole = feed(chunk)
            if resumes and b'"error"' in whole:
                whole, ill = healthy(whole)
                if ill:
                    if whole:
                        send(out(through(whole)))
                    raise ailment(self._lease, ill)
            return send(out(through(whole))) if whole else True

        async def drained() -> None:
            pulse.held = True
            await exchange.drained()
            pulse.held = False

        await response.pour(relay, drained)
        if not exchange.answering:
            await self._begin()
        await exchange.end(splitter.rest())
        return splitter.tail

    async def _translated_events(self, translation: Translation) -> bytes:
        """The head goes out with the first thing there is to say, so that until then the request can be tried again."""
        exchange, passing = self._exchange, self._passing
        splitter = Splitter()
        self._called(translation.kind)
        while chunk := await self._response.read():
            self._pulse.chunks += 1
            whole = splitter.feed(chunk)
            if whole and not exchange.answering:
                self._tries.check_event(self._lease, whole)
            whole, ill = healthy(whole) if passing.resumes else (whole, "")
            if whole:
                whole = passing.through(whole) if exchange.answering else passing.first(whole)
            if whole and (said := passing.out(translation.events(whole), translation.kind)):
                if not exchange.answering:
                    await self._begin()
                await self._write(said)
            if ill:
                raise ailment(self._lease, ill)
        last = translation.end(splitter.rest())
        await kept(translation)
        if not exchange.answering:
            await self._begin()
        await exchange.end(last)
        return splitter.tail

    async def _plain(self) -> bytes:
        exchange, response = self._exchange, self._response
        length = response.content_length
        known = [] if length is None else [(b"content-length", b"%d" % length)]
        if exchange.method == "HEAD":
            await exchange.start(response.status, self._head + known)
            await exchange.end()
            return b""
        held: list[bytes] = []
        size = 0
        last = b""
        while chunk := await response.read():
            self._pulse.chunks += 1
            if exchange.answering:
                last = (last + chunk)[-TAIL_BYTES:]
                await self._write(chunk)
                continue
            held.append(chunk)
            size += len(chunk)
            if size > HELD_BYTES:
                await exchange.start(response.status, self._head + known)
                last = b"".join(held)
                await exchange.write(last)
                held.clear()
        if exchange.answering:
            await exchange.end()
            return last[-TAIL_BYTES:]
        whole = b"".join(held)
        await self._respond(response.status, whole)
        return whole

    async def _translated_plain(self, translation: Translation) -> bytes:
        held: list[bytes] = []
        size = 0
        while chunk := await self._response.read():
            self._pulse.chunks += 1
            held.append(chunk)
            size += len(chunk)
            if size > MAX_TRANSLATED_BYTES:
                raise EngineError(
                    f"the engine's answer has more than {MAX_TRANSLATED_BYTES >> 20} MiB",
                    hint="ask for less at a time, or in the engine's own dialect",
                )
        whole = b"".join(held)
        await self._respond(self._response.status, whole, translation)
        return whole

    async def _respond(self, status: int, whole: bytes, translation: Translation | None = None) -> None:
        """Gives a plain answer; as an event, where a stream's head went out already."""
        exchange = self._exchange
        if status >= 400:
            self._tries.check_answer(self._lease, status, whole)
            status, whole = explained(status, whole)
            if status == 501 and translation is None:
                self._head.append(fields.NO_RETRY)
        if translation is not None:
            status, whole = translation.body(status, whole)
            await kept(translation)
            self._called(exchange.dialect.plain)
        if not exchange.early:
            await exchange.respond(status, self._head, whole)
            return
        said = chat.parsed(whole)
        if status >= 400 or said is None:
            raise chat.refusal(max(400, status), said, whole)
        await exchange.start(status, [], events=True)
        await exchange.end(sse.event(whole.decode("utf-8", "replace")) + b"data: [DONE]\n\n")
