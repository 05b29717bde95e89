"""`Passage`: an engine's event stream on its way to a client without being taken apart. Pure.

What comes in is a body in chunks, and so is what goes out. Mostly an engine sends whole chunks that hold whole events:
those go on as they are, framing and all, once their framing was seen to be right. Whatever else comes is taken apart
and put into chunks of our own, so that the client never has a part of an event when the engine dies.
"""

from __future__ import annotations

from corral.errors import CallerError, EngineError
from corral.gateway.http.chunks import Chunks
from corral.gateway.http.sse import Splitter
from corral.gateway.path.count import without_count

LAST_CHUNK = b"0\r\n\r\n"


class Passage:
    """Give it the body's bytes with `feed`; `done` once the body is whole."""

    __slots__ = ("_chunks", "_splitter", "done", "surplus")

    def __init__(self) -> None:
        self.done = False
        self.surplus = False  # more came than belongs to the body
        self._chunks: Chunks | None = None  # while something has to be taken apart
        self._splitter: Splitter | None = None

    def feed(self, data: bytes) -> bytes:
        """What may go out now, in chunks; empty when no event is whole yet.

        Raises EngineError for what is no chunk, and when an event grows beyond the bound.
        """
        if self._chunks is None:
            # Mostly one chunk that ends where an event does, its size written plainly.
            if data.endswith(b"\n\n\r\n") and data.startswith(b"%x\r\n" % (len(data) - data.find(b"\r", 0, 9) - 4)):
                return data
            if self._is_whole(data):
                return data
            self._chunks, self._splitter = Chunks(), self._splitter or Splitter(tail_bytes=0)
        return self._apart(data)

    def _is_whole(self, data: bytes) -> bool:
        """Whether `data` is whole chunks that end where an event does."""
        at, size = 0, len(data)
        while (start := data.find(b"\r\n", at, at + 9) + 2) > 2:
            try:
                long = int(data[at : start - 2], 16)
            except ValueError:
                return False
            if not data.startswith(b"%x\r\n" % long, at):
                return False  # written in some other way
            if not long:
                # The last chunk. What comes behind an event that is not whole goes the other way, too.
                self.done = data[start:] == b"\r\n" and (at == 0 or data[at - 4 : at] == b"\n\n\r\n")
                return self.done
            at = start + long + 2
            if at >= size:
                return at == size and data.endswith(b"\n\n\r\n")
            if not data.startswith(b"\r\n", at - 2):
                return False
        return False

    def _apart(self, data: bytes) -> bytes:
        chunks, splitter = self._chunks, self._splitter
        assert chunks is not None and splitter is not None
        pieces: list[bytes] = []
        try:
            used = chunks.feed(data, pieces)
        except CallerError as exc:
            raise EngineError(f"the engine's answer is no HTTP: {exc.message}", hint="see its log") from exc
        whole = b"".join(splitter.feed(piece) for piece in pieces)
        if chunks.done:
            self.done = True
            self.surplus = used < len(data)
            whole += splitter.rest()
            return in_chunk(whole) + LAST_CHUNK
        if chunks.between and not splitter.holding:
            self._chunks = None
        return in_chunk(whole)


def chunks_without_count(data: bytes) -> bytes:
    """What `Passage.feed` gave, without the event that is there because we asked for it; mostly it is not there."""
    if b'"usage"' not in data:
        return data
    last = LAST_CHUNK if data.endswith(LAST_CHUNK) else b""
    return in_chunk(without_count(unframed(data))) + last


def unframed(chunked: bytes) -> bytes:
    """What is in whole chunks, such as `Passage.feed` gives."""
    pieces: list[bytes] = []
    Chunks().feed(chunked, pieces)
    return b"".join(pieces)


def in_chunk(data: bytes) -> bytes:
    """`data` as one chunk; nothing for nothing, because an empty one would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
