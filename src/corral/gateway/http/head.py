"""`Head`: the head of one request, read by llhttp and then held to the rules that llhttp leaves to others. Pure.

Source: RFC 9110 and RFC 9112; where they let a server choose, the stricter way is taken, because a proxy in front and
an engine behind must never read a request otherwise than we do.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

from corral.errors import CallerError, HeadTooLarge
from corral.gateway.http.headers import Fields

MAX_HEAD_BYTES = 64 << 10
MAX_FIELDS = 128
HINT = "is this a plain HTTP client?"

_WATCHED = frozenset((b"content-length", b"host", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)


class Head:
    """Give it bytes with `feed` until that says True."""

    __slots__ = (
        "_hosts", "_last", "_parser", "_size", "_target", "_whole", "chunked", "expects", "fields", "keep_alive",
        "length", "method", "path", "plan", "query", "raw_path", "version",
    )  # fmt: skip

    # What the parser need not call. It looks for these, and not finding them would cost an exception each.
    on_message_begin = on_status = on_body = on_message_complete = on_chunk_header = on_chunk_complete = None

    def __init__(self) -> None:
        self.fields: Fields = []  # names in lower case
        self.length: int | None = None  # declared
        self.chunked = False
        self.expects = False  # the client waits for our word before it sends the body
        self.plan: object = None  # whatever somebody makes of it, kept here
        self._hosts: list[bytes] = []
        self._target = b""
        self._size = 0
        self._last = b""  # the end of what was fed: the empty line may straddle two pieces
        self._whole = False
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> int:
        """How many bytes of `data` belong to the head, when that is whole now, else 0.

        Raises CallerError when it is no HTTP/1.x, HeadTooLarge.
        """
        last = self._last
        end = (last + data).find(b"\r\n\r\n") + 4 - len(last)
        ended = end >= 4 - len(last)
        if self._size + (end if ended else len(data)) > MAX_HEAD_BYTES:
            raise _too_large()
        self._size += len(data)
        self._parse(data[:end] if ended else data)
        if ended:
            self._parser = None  # it and we refer to each other
            self._check()
            return end
        self._last = data[-3:] if len(data) >= 3 else (last + data)[-3:]
        return 0

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # another protocol is wished for; HTTP is answered
        except httptools.HttpParserCallbackError as exc:
            if isinstance(exc.__context__, CallerError):
                raise exc.__context__ from None
            raise
        except httptools.HttpParserError as exc:
            raise _bad(f"the request is no valid HTTP/1.1: {str(exc)[:100]}") from exc
        if len(self.fields) > MAX_FIELDS:
            raise _too_large()

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.rstrip(b" \t")
        self.fields.append((name, value))
        if name in _WATCHED:
            self._watch(name, value)

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if self.length is not None or not value.isdigit():
                raise _bad("the request has no right content-length")
            self.length = int(value)
        elif name == b"host":
            self._hosts.append(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise _bad("the request has a transfer coding that is not understood", hint="send it plain or chunked")
            self.chunked = True
        elif name == b"expect":
            self.expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self.method: str = parser.get_method().decode("ascii")
        self.version: str = parser.get_http_version()
        self.keep_alive: bool = parser.should_keep_alive()
        self._whole = True

    # The rest of the rules.

    def _check(self) -> None:
        if not self._whole:
            raise _bad("the request is no valid HTTP/1.1")
        if self.version != "1.1":
            if self.version != "1.0":
                raise _bad(f"HTTP/{self.version} is not spoken here", hint="send HTTP/1.1")
            self.keep_alive = False
            self.expects = False
            if self.chunked:
                raise _bad("an HTTP/1.0 request cannot be chunked", hint="send HTTP/1.1, or a content-length")
        if self.chunked and self.length is not None:
            raise _bad("the request has both a content-length and chunks", hint="send one of them")
        if len(self._hosts) != 1 and (self._hosts or self.version == "1.1"):
            raise _bad("the request must have one Host field", hint="send the address that you asked for")
        if self._hosts and not _HOST.fullmatch(self._hosts[0]):
            raise _bad("the Host field is no host", hint="send the address that you asked for")
        target = self._target
        if not target.startswith(b"/"):
            target = self._origin_form(target)
        if b"#" in target:
            raise _bad("the request's target has a fragment", hint="leave out what follows the #")
        self.raw_path, _, self.query = target.partition(b"?")
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path

    def _origin_form(self, target: bytes) -> bytes:
        if target == b"*" and self.method == "OPTIONS":
            return target
        match = _ABSOLUTE.fullmatch(target)
        if match is None or self.method == "CONNECT":
            raise _bad("the request's target is no path", hint="Corral is no proxy: ask for /…")
        if self._hosts and match[1].lower() != self._hosts[0].lower():
            raise _bad("the request's target and its Host field name two hosts", hint="Corral is no proxy: ask for /…")
        rest: bytes = match[2]
        return rest if rest.startswith(b"/") else b"/" + rest


def _bad(message: str, hint: str = HINT) -> CallerError:
    return CallerError(message, hint=hint)


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request's head has more than {MAX_HEAD_BYTES >> 10} KiB or {MAX_FIELDS} fields",
        hint="send fewer or shorter fields",
    )
