"""Relaying: an engine's answer to its client, byte for byte or in another dialect."""

from __future__ import annotations

from corral.errors import EngineError
from corral.gateway import headers as fields
from corral.gateway import sse, upstream
from corral.gateway.again import Tries
from corral.gateway.dialects import chat
from corral.gateway.dialects.dialect import Translation, kept
from corral.gateway.exchange import Exchange
from corral.gateway.passing import Passing
from corral.gateway.sse import TAIL_BYTES, Splitter
from corral.scheduler.lease import Lease
from corral.supervisor.pulse import Pulse

HELD_BYTES = 4 << 20
"""A plain answer up to this size is held until it is whole: if its engine dies, nothing of it was sent yet."""

MAX_TRANSLATED_BYTES = 256 << 20
"""A plain answer that is to be translated has to be held as a whole."""


async def relay(
    exchange: Exchange,
    lease: Lease,
    tries: Tries,
    response: upstream.Response,
    pulse: Pulse,
    translation: Translation | None,
    passing: Passing,
) -> bytes:
    """Relays an answer to its client. The end of what the engine sent, as much as a stream's tail has.

    Every event of a stream goes through `passing`. Raises what `tries` makes of an answer that tells of its engine,
    before anything of it is sent.
    """
    kind = fields.first(response.headers, b"content-type") or b""
    coding = fields.first(response.headers, b"content-encoding")
    head = fields.downward(response.headers) + fields.of_lease(lease)
    if kind[:17].lower() == b"text/event-stream" and coding in (None, b"identity") and exchange.method != "HEAD":
        if translation is not None:
            return await _translate_events(exchange, lease, tries, head, response, pulse, translation, passing)
        return await _relay_events(exchange, lease, tries, head, response, pulse, passing)
    if (error := passing.not_events(response.status)) is not None:
        raise error
    if translation is not None:
        return await _translate_plain(exchange, lease, tries, head, response, pulse, translation)
    return await _relay_plain(exchange, lease, tries, head, response, pulse)


async def _relay_events(
    exchange: Exchange,
    lease: Lease,
    tries: Tries,
    head: fields.Fields,
    response: upstream.Response,
    pulse: Pulse,
    passing: Passing,
) -> bytes:
    """The head goes out with the first whole event, so that until then the request can be tried again."""
    splitter = Splitter()
    pulse.stream = True
    while not exchange.answering and (chunk := await response.read()):
        pulse.chunks += 1
        if whole := splitter.feed(chunk):
            tries.check_event(lease, whole)
            if not (whole := passing.first(whole)):
                continue
            await exchange.start(response.status, head, events=True)
            await exchange.write(whole)
    feed, send, through, out = splitter.feed, exchange.send, passing.through, passing.out

    def relay(chunk: bytes) -> bool:
        pulse.chunks += 1
        whole = feed(chunk)
        return send(out(through(whole))) if whole else True

    async def drained() -> None:
        pulse.held = True
        await exchange.drained()
        pulse.held = False

    await response.pour(relay, drained)
    if not exchange.answering:
        await exchange.start(response.status, head, events=True)
    await exchange.end(splitter.rest())
    return splitter.tail


async def _relay_plain(
    exchange: Exchange,
    lease: Lease,
    tries: Tries,
    head: fields.Fields,
    response: upstream.Response,
    pulse: Pulse,
) -> bytes:
    held: list[bytes] = []
    size = 0
    length = response.content_length
    if exchange.method == "HEAD":
        if length is not None:
            head.append((b"content-length", b"%d" % length))
        await exchange.start(response.status, head)
        await exchange.end()
        return b""
    last = b""
    while chunk := await response.read():
        pulse.chunks += 1
        if exchange.answering:
            last = (last + chunk)[-TAIL_BYTES:]
            pulse.held = True
            await exchange.write(chunk)
            pulse.held = False
            continue
        held.append(chunk)
        size += len(chunk)
        if size > HELD_BYTES:
            if length is not None:
                head.append((b"content-length", b"%d" % length))
            await exchange.start(response.status, head)
            last = b"".join(held)
            await exchange.write(last)
            held.clear()
    if exchange.answering:
        await exchange.end()
        return last[-TAIL_BYTES:]
    whole = b"".join(held)
    tries.check_answer(lease, response.status, whole)
    if exchange.early:
        return await _as_events(exchange, response.status, whole)
    await exchange.respond(response.status, head, whole)
    return whole


async def _as_events(exchange: Exchange, status: int, whole: bytes) -> bytes:
    """A plain answer where a stream's head went out already. Raises the error that it is."""
    said = chat.parsed(whole)
    if status >= 400 or said is None:
        raise chat.refusal(max(400, status), said, whole)
    await exchange.start(status, [], events=True)
    await exchange.end(sse.event(whole.decode("utf-8", "replace")) + b"data: [DONE]\n\n")
    return whole


async def _translate_events(
    exchange: Exchange,
    lease: Lease,
    tries: Tries,
    head: fields.Fields,
    response: upstream.Response,
    pulse: Pulse,
    translation: Translation,
    passing: Passing,
) -> bytes:
    """The head goes out with the first thing there is to say, so that until then the request can be tried again."""
    splitter = Splitter()
    pulse.stream = True
    head = [*(field for field in head if field[0] != b"content-type"), (b"content-type", translation.kind)]
    while chunk := await response.read():
        pulse.chunks += 1
        whole = splitter.feed(chunk)
        if whole and not exchange.answering:
            tries.check_event(lease, whole)
            whole = passing.first(whole)
        elif whole:
            whole = passing.through(whole)
        if whole and (said := passing.out(translation.events(whole), translation.kind)):
            if not exchange.answering:
                await exchange.start(response.status, head, events=True)
            pulse.held = True
            await exchange.write(said)
            pulse.held = False
    last = translation.end(splitter.rest())
    await kept(translation)
    if not exchange.answering:
        await exchange.start(response.status, head, events=True)
    await exchange.end(last)
    return splitter.tail


async def _translate_plain(
    exchange: Exchange,
    lease: Lease,
    tries: Tries,
    head: fields.Fields,
    response: upstream.Response,
    pulse: Pulse,
    translation: Translation,
) -> bytes:
    held: list[bytes] = []
    size = 0
    while chunk := await response.read():
        pulse.chunks += 1
        held.append(chunk)
        size += len(chunk)
        if size > MAX_TRANSLATED_BYTES:
            raise EngineError(
                f"the engine's answer has more than {MAX_TRANSLATED_BYTES >> 20} MiB",
                hint="ask for less at a time, or in the engine's own dialect",
            )
    whole = b"".join(held)
    tries.check_answer(lease, response.status, whole)
    status, body = translation.body(response.status, whole)
    await kept(translation)
    if exchange.early:
        await _as_events(exchange, status, body)
        return whole
    head = [*(field for field in head if field[0] != b"content-type"), (b"content-type", b"application/json")]
    await exchange.respond(status, head, body)
    return whole
