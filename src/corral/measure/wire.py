"""One request on a connection of its own, over a unix socket, TCP or TLS; each piece of the answer gets its time."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import httptools

from corral.connection import Address
from corral.errors import CallerError
from corral.lazy_dataclass import dataclass
from corral.measure.answer import Answer, Shot

WITHIN_S: Final = 600.0
CONNECT_S: Final = 30.0
_MOST_WORDS: Final = 4000


def tls_of(address: Address) -> ssl.SSLContext | None:
    """How its certificate is checked: against the system's authorities, and `address.ca`. Raises CallerError."""
    if not address.tls or address.socket is not None:
        return None
    try:
        context = ssl.create_default_context()
        if address.ca is not None:
            context.load_verify_locations(address.ca)
    except OSError as error:
        raise CallerError(
            f"the authority's file cannot be used: {address.ca}: {error.strerror or error}",
            hint="name a PEM file with --ca, or in CORRAL_CA",
        ) from error
    return context


def head(address: Address, method: str, path: str, length: int) -> bytes:
    """A request's head. A key is sent to addresses, never to a socket, which asks for none."""
    host = address.host if address.socket is None else "localhost"
    host = f"[{host}]" if ":" in host else host
    where = (
        host if address.socket is not None or address.port == (443 if address.tls else 80) else f"{host}:{address.port}"
    )
    key = f"authorization: Bearer {address.key}\r\n" if address.key and address.socket is None else ""
    return (
        f"{method} {address.base}{path} HTTP/1.1\r\nhost: {where}\r\nuser-agent: corral-bench\r\n"
        f"accept: text/event-stream, application/json\r\n{key}connection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


class _Exchange(asyncio.Protocol):
    """Sends `request` once it is told to, and gives each part of the answer to `body`."""

    def __init__(self, body: Callable[[bytes, float], None]) -> None:
        self._body = body
        self._parser = httptools.HttpResponseParser(self)
        self._now = 0.0
        self.status, self.type, self.headers = 0, "", {}  # type: ignore[var-annotated]
        self.problem = ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.problem = self.problem or f"no HTTP: {error}"
            self.end()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._body(data, self._now)

    def on_message_complete(self) -> None:
        if self.status >= 200:  # one of 1xx comes before the answer
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done() and exc is not None:
            self.problem = self.problem or f"the connection broke: {exc}"
        self.end()

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _open(address: Address, tls: ssl.SSLContext | None, body: Callable[[bytes, float], None]) -> _Exchange:
    loop = asyncio.get_running_loop()
    made = partial(_Exchange, body)
    async with asyncio.timeout(CONNECT_S):
        if address.socket is not None:
            return (await loop.create_unix_connection(made, str(address.socket)))[1]
        return (await loop.create_connection(made, address.host, address.port, ssl=tls))[1]


async def shoot(
    address: Address, tls: ssl.SSLContext | None, path: str, body: bytes, *, due: float | None = None,
    within_s: float = WITHIN_S,
) -> Shot:  # fmt: skip
    """One streamed request. Whatever goes wrong is in its shot. The clock starts when the request is sent."""
    answer, said = Answer(), bytearray()
    began = asked = time.perf_counter()
    exchange: _Exchange | None = None

    def take(data: bytes, now: float) -> None:
        if exchange is not None and exchange.status == 200:
            answer.take(data, now)
            if answer.done:
                exchange.end()
        elif len(said) < _MOST_WORDS:
            said.extend(data)

    try:
        exchange = await _open(address, tls, take)
        began = time.perf_counter()
        async with asyncio.timeout(within_s):
            exchange.transport.write(head(address, "POST", path, len(body)) + body)
            await exchange.ended
        answer.problem = _problem(exchange, answer, bytes(said))
        answer.headers = {name: text for name, text in exchange.headers.items() if name.startswith("x-corral-")}
    except (OSError, ValueError) as error:
        answer.problem = _words(address, error, connected=exchange is not None)
    finally:
        if exchange is not None:
            exchange.transport.abort()
    return answer.shot(began, time.perf_counter(), connect=began - asked, due=due)


def _problem(exchange: _Exchange, answer: Answer, said: bytes) -> str:
    if exchange.problem and not answer.done:
        return exchange.problem
    if exchange.status == 0:
        return "the connection was closed without an answer"
    if exchange.status != 200:
        return f"{exchange.status}: {_said(said)}"
    kind = exchange.headers.get("content-type", "")
    return "" if "event-stream" in kind or answer.done else f"the answer is no stream but {kind or 'of no kind'}"


def _said(said: bytes) -> str:
    """The words of an error's body."""
    try:
        found: Any = json.loads(said)
        error = found.get("error", found)
        words = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        words = said.decode(errors="replace")
    return " ".join(str(words).split())[:300] or "nothing was said"


def _words(address: Address, error: Exception, *, connected: bool) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time" if connected else "the connection could not be made in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and not connected:
        return f"{type(error).__name__}: nothing answers at {address}: {error.strerror or error}"
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Said:
    """A plain answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def words(self) -> str:
        return _said(self.body)


async def ask(
    address: Address, tls: ssl.SSLContext | None, method: str, path: str, body: Any = None, *, within_s: float = 60.0
) -> Said:
    """One plain request. Raises OSError (TimeoutError too) where there is no answer."""
    said = bytearray()
    exchange = await _open(address, tls, lambda data, now: said.extend(data))
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        async with asyncio.timeout(within_s):
            exchange.transport.write(head(address, method, path, len(payload)) + payload)
            await exchange.ended
        if exchange.problem or not exchange.status:
            raise ConnectionError(exchange.problem or "the connection was closed without an answer")
        return Said(exchange.status, bytes(said))
    finally:
        exchange.transport.abort()
