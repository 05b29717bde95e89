"""Answers that are made here and not by an engine: JSON, text, pages, event feeds, errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from corral.api import ErrorInfo, dump
from corral.errors import CannotFit, CorralError
from corral.gateway.dialects import openai
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.exchange import Exchange
from corral.gateway.http import sse
from corral.gateway.http.headers import EVENTS, NO_RETRY, Fields, first, waited_for

_PAGE: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)


def encode(value: Any) -> bytes:
    """JSON of a wire type, or of lists and dicts of them."""
    return json.dumps(dump(value), default=str).encode()


async def send_json(exchange: Exchange, value: Any, status: int = 200) -> None:
    await exchange.respond(status, [(b"content-type", exchange.dialect.plain)], encode(value))


async def send_text(exchange: Exchange, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
    await exchange.respond(200, [(b"content-type", kind.encode())], body)


async def send_error(exchange: Exchange, exc: CorralError) -> None:
    """Tells the client of `exc` in whatever way is left: an error body, an event in a stream, a broken connection."""
    if exchange.ended:
        return
    dialect = exchange.dialect
    if dialect is openai.OPENAI and exchange.header(b"anthropic-version") is not None:
        from corral.gateway.dialects.anthropic.errors import ANTHROPIC  # at paths that both have, and where nothing is

        dialect = ANTHROPIC
    if exchange.started:
        if exchange.endless:
            await exchange.end()
        elif exchange.events:
            await exchange.end(dialect.event(exc))
        else:
            exchange.abort()
        return
    body, head = dialect.error(exc), [(b"content-type", dialect.kind), *_error_fields(exc)]
    if dialect.numbered and (number := first(exchange.extra, b"x-request-id")) is not None:
        body = {**body, "request_id": number.decode()}
        if first(exchange.extra, b"request-id") is None:
            head.append((b"request-id", number))
    await exchange.respond(dialect.status(exc), head, body if isinstance(body, bytes) else encode(body))


def error_info(exc: CorralError) -> ErrorInfo:
    return ErrorInfo(exc.code, exc.message, exc.hint, exc.status, exc.details)


CONTROL = Dialect("control", lambda exc: {"error": error_info(exc)}, openai.error_event)
"""Corral's own."""


def _error_fields(exc: CorralError) -> Fields:
    fields: Fields = []
    if exc.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % exc.retry_after_s))
    if (position := exc.details.get("queue_position")) is not None:
        fields.append((b"x-corral-queue-position", b"%d" % position))
    if isinstance(lacked := exc.details.get("waited_for"), str) and lacked:
        fields.append(waited_for(lacked))
    if exc.retry_after_s is None and (exc.status == 501 or isinstance(exc, CannotFit)):  # trying again never helps
        fields.append(NO_RETRY)
    if exc.status == 401 and exc.fault == "caller":
        fields.append((b"www-authenticate", b'Bearer realm="corral"'))
    if (allow := exc.details.get("allow")) is not None:
        fields.append((b"allow", str(allow).encode("ascii", "replace")))
    return fields


def wants_events(exchange: Exchange) -> bool:
    """The client's Accept field names event streams."""
    return b"text/event-stream" in (exchange.header(b"accept") or b"").lower()


def wants_page(exchange: Exchange) -> bool:
    """It is a browser that somebody looks at: nothing else names HTML in its Accept field."""
    return b"text/html" in (exchange.header(b"accept") or b"").lower()


async def send_feed(
    exchange: Exchange, source: AsyncIterator[bytes], heartbeat_s: float, *, page: bytes | None = None
) -> None:
    """Sends the events of `source` as they come, and a comment when there was none for a while, until either ends.
    `page`: what comes is text of a page that grows, and this its beginning."""
    exchange.endless = True
    idle = sse.HEARTBEAT if page is None else b"<!-- -->"
    await exchange.start(200, list(EVENTS if page is None else _PAGE), events=page is None)
    if exchange.method == "HEAD":
        await exchange.end()
        return
    upcoming: asyncio.Task[bytes | None] | None = None
    try:
        # A first comment, so that a client sees at once that it is connected.
        await exchange.write(idle if page is None else page)
        while True:
            upcoming = upcoming or asyncio.create_task(_next(source))
            done, _ = await asyncio.wait({upcoming}, timeout=heartbeat_s)
            if not done:
                await exchange.write(idle)
                continue
            data = upcoming.result()
            upcoming = None
            if data is None:
                await exchange.end()
                return
            await exchange.write(data)
    finally:
        if upcoming is not None:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await upcoming
        if (close := getattr(source, "aclose", None)) is not None:
            await close()


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    return await anext(source, None)
