"""`Chunks`: a body that comes in chunks, taken apart as strictly as llhttp does it. Pure.

Ours, because llhttp does not say where in its input a message ended. Source: RFC 9112, section 7.1.
"""

from __future__ import annotations

import re

from corral.errors import CallerError

MAX_LINE_BYTES = 1024
"""Of a size with its extensions, and of one trailer field. Both are thrown away."""

MAX_TRAILERS = 32

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"(?:" + _TOKEN + rb'|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*")'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _TOKEN + rb"(?:=" + _VALUE + rb")?)*")
_TRAILER = re.compile(rb"(" + _TOKEN + rb"):[\t -~\x80-\xff]*")
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))


class Chunks:
    """Give it bytes with `feed`; `done` once the last chunk and the trailers are through."""

    __slots__ = ("_left", "_line", "_state", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._state = "size"  # size → data → end → size … → trailers
        self._left = 0  # of the present chunk
        self._line = b""  # the beginning of a line
        self._trailers = 0

    @property
    def between(self) -> bool:
        """What was fed ended where a chunk does."""
        return self._state == "size" and not self._line

    def feed(self, data: bytes, out: list[bytes]) -> int:
        """Puts the body's bytes in `data` into `out`; how many bytes of `data` were of this message.

        Raises CallerError for what is no chunk.
        """
        at = 0
        while at < len(data) and not self.done:
            if self._state == "data":
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = "end"
                continue
            end = data.find(b"\n", at)
            line = self._line + data[at : end if end >= 0 else len(data)]
            if len(line) > MAX_LINE_BYTES:
                raise _bad("has a line that is too long")
            if end < 0:
                self._line = line
                self._refuse_early(line)
                return len(data)
            self._line = b""
            at = end + 1
            if not line.endswith(b"\r"):
                raise _bad("has a line that does not end in CR LF")
            self._take(line[:-1])
        return at

    def _take(self, line: bytes) -> None:
        if self._state == "end":
            if line:
                raise _bad("has a chunk longer than it says")
            self._state = "size"
        elif self._state == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise _bad("has a chunk without a right size")
            self._left = int(match[1], 16)
            self._state = "data" if self._left else "trailers"
        elif not line:
            self.done = True
        else:
            match = _TRAILER.fullmatch(line)
            self._trailers += 1
            if match is None or match[1].lower() in _FRAMING or self._trailers > MAX_TRAILERS:
                raise _bad("has bad trailers")

    def _refuse_early(self, line: bytes) -> None:
        """No waiting for the rest of a line that is wrong already."""
        if self._state == "end" and line != b"\r"[: len(line)]:
            raise _bad("has a chunk longer than it says")


def _bad(what: str) -> CallerError:
    return CallerError(f"the chunked body {what}", hint="is this a plain HTTP client?")
