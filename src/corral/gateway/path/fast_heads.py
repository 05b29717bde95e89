"""Heads that the fast path knows: what of an engine's goes to a client, kept with the head it was made of.

An engine sends the same head again and again, with another length at most. One that was read is compared byte by byte
with the next; what is right stays right with other digits.
"""

from __future__ import annotations

from functools import lru_cache

import httptools

from corral.engines.plan import Endpoint
from corral.gateway.http import headers as fields
from corral.gateway.path.upstream import MAX_HEAD_BYTES
from corral.gateway.wire import STATUS_LINES
from corral.lazy_dataclass import dataclass
from corral.scheduler.lease import Lease

MOST = 16
"""Engines' heads that are remembered; the oldest goes first."""

_LENGTH = b"\r\ncontent-length:"
_LONGEST = 12  # digits of a length, and one more


@dataclass(slots=True, eq=False)
class Answer:
    """What there is to know of an engine's head that is plain: its answer is of a declared length, or an event stream
    in chunks."""

    status: int
    status_line: bytes
    lines: bytes  # its fields, as the client gets them
    events: bool
    keeps: bool  # the connection may be used again


Found = tuple[Answer | None, int, int]
"""The answer, None when its head is not plain; its length; and where the head ends, less than 0 when it is not there
yet."""


class Answers:
    """The heads of engines."""

    def __init__(self) -> None:
        self._known: list[tuple[bytes, bytes, Answer]] = []  # around the digits of the length; without any, b"" follows
        self._last: tuple[bytes, int, bytes, Answer] | None = None  # the same, of the last plain one

    def find(self, data: bytes) -> Found:
        """The head at the beginning of `data`."""
        for before, after, answer in self._known:
            if not data.startswith(before):
                continue
            at = len(before)
            if not after:
                return answer, 0, at
            end = data.find(b"\r", at, at + _LONGEST)
            digits = data[at:end]
            if end > 0 and digits.isdigit() and data.startswith(after, end):
                if not answer.events:
                    self._last = before, at, after, answer
                return answer, int(digits), end + len(after)
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end >= 4:
            return self._read(data[:end])
        return None, 0, 0 if len(data) >= MAX_HEAD_BYTES else -1

    def whole(self, data: bytes) -> tuple[Answer, int] | None:
        """Where `data` is one answer of known length and nothing else, its head and where that ends; None mostly says
        that it has to be looked at more closely."""
        if (last := self._last) is None:
            return None
        before, at, after, answer = last
        end = data.find(b"\r", at, at + _LONGEST)
        body = end + len(after)
        if data.startswith(before) and data.startswith(after, end) and data[at:end] == b"%d" % (len(data) - body):
            return answer, body
        return None

    def _read(self, head: bytes) -> Found:
        reader = _Reader()
        answer = reader.read(head)
        if answer is None:
            return None, 0, len(head)
        before, after = head, b""
        if not answer.events:
            at = head.lower().find(_LENGTH) + len(_LENGTH)
            at += len(head[at:]) - len(head[at:].lstrip(b" "))
            end = head.find(b"\r", at)
            before, after = head[:at], head[end:]
            if head[at:end] != b"%d" % reader.length:
                return answer, reader.length, len(head)  # written in some other way
        self._known.append((before, after, answer))
        if len(self._known) > MOST:
            del self._known[0]
        return answer, reader.length, len(head)


class _Reader:
    """One head, read by llhttp."""

    on_message_begin = on_status = on_body = on_message_complete = on_chunk_header = on_chunk_complete = None

    def __init__(self) -> None:
        self._fields: fields.Fields = []
        self.length = 0

    def read(self, head: bytes) -> Answer | None:
        """None when it is not plain."""
        parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(head)
            status, version, keeps = parser.get_status_code(), parser.get_http_version(), parser.should_keep_alive()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        finally:
            del self._parser  # it and we refer to each other
        # What is no success may say that its engine has to be replaced.
        if not 200 <= status < 400 or status in (204, 304) or version != "1.1" or status not in STATUS_LINES:
            return None
        kind = fields.first(self._fields, b"content-type") or b""
        coding = fields.first(self._fields, b"content-encoding")
        lengths = [value for name, value in self._fields if name == b"content-length"]
        codings = [value.lower() for name, value in self._fields if name == b"transfer-encoding"]
        events = kind[:17].lower() == b"text/event-stream" and coding in (None, b"identity")
        if (lengths, codings) != ([], [b"chunked"]) if events else (len(lengths) != 1 or codings):
            return None
        if lengths:
            if not lengths[0].isdigit() or len(lengths[0]) >= _LONGEST:
                return None
            self.length = int(lengths[0])
        return Answer(status, STATUS_LINES[status], as_lines(fields.downward(self._fields)), events, keeps)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        return


def as_lines(pairs: fields.Fields) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs)


def lines_of(lease: Lease) -> bytes:
    """The fields of a lease that was there at once, as lines."""
    return _lines_of(lease.model, lease.unit, lease.degraded)


@lru_cache(maxsize=128)
def _lines_of(model: str, unit: str, degraded: str) -> bytes:
    return as_lines(fields.of_lease(Lease(model, unit, 0, Endpoint(), degraded=degraded)))
