"""`FastStream`: an event stream on the fast path that has begun to go out, from piece to piece until its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import CorralError
from corral.gateway.dialects.usage import Usage, usage_of
from corral.gateway.path.passage import Passage, chunks_without_count, unframed
from corral.gateway.path.sent import HELD_BYTES, Sent

if TYPE_CHECKING:
    from corral.gateway.path.fast_exchange import FastExchange
    from corral.gateway.wire import Link as Client

_END = 4
"""Pieces at the end of a stream that tell what it took, and whether it failed."""


class FastStream:
    """Listens to the engine's connection in place of its exchange, which hears of what is not usual."""

    __slots__ = ("_client", "_exchange", "_hides", "_passage", "_pieces", "_size", "sent")

    def __init__(self, exchange: FastExchange, client: Client, passage: Passage, *, hides: bool, resumes: bool) -> None:
        """`hides`: the engine's count is not for the client. `resumes`: another engine could go on with it."""
        self._exchange, self._client, self._passage, self._hides = exchange, client, passage, hides
        self._pieces: list[bytes] = []  # as they came from `passage`: all that `sent` has not, and the last ones
        self._size = 0
        self.sent = Sent(framed=True) if resumes else None  # what the client has, but for `pieces`

    def keep(self, out: bytes) -> None:
        """Notes a piece that goes out now."""
        self._pieces.append(out)
        self._size += len(out)
        if self._size > HELD_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        pieces = self._pieces
        if (sent := self.sent) is not None:
            sent.keep(b"".join(pieces[:-_END]))
            sent.read()
        del pieces[:-_END]
        self._size = sum(map(len, pieces)) if sent is not None else 0

    # What the engine's connection calls.

    def received(self, data: bytes) -> None:
        exchange, passage = self._exchange, self._passage
        exchange.chunks += 1
        try:
            out = passage.feed(data)
            if out:
                if b'"error"' in out and self.sent is not None and exchange.ailed(out):
                    return
                self._pieces.append(out)
                self._size += len(out)
                if self._size > HELD_BYTES:
                    self._shorten()
                if self._hides:
                    out = chunks_without_count(out)
            if passage.done:
                exchange.stream_ended(self, out)
            elif out and not self._client.transmit(out):
                exchange.hold()
        except CorralError as error:
            exchange.failed(error)
        except Exception as error:  # noqa: BLE001 - its client must hear of it
            exchange.bug(error)

    def lost(self, *, broken: bool) -> None:
        self._exchange.lost(broken=broken)

    # What is to be known of it, mostly at its end.

    @property
    def surplus(self) -> bool:
        """More came than belongs to it."""
        return self._passage.surplus

    @property
    def end(self) -> bytes:
        """The last of its events."""
        return unframed(b"".join(self._pieces[-_END:]))

    def took(self) -> tuple[Usage | None, bytes, bool]:
        """What it took, as the engine says; its end, in chunks perhaps; and whether that may tell of an error."""
        end = b"".join(self._pieces[-_END:])
        usage = usage_of(end)
        if usage is None:  # or it stands in two chunks
            end = unframed(end)
            usage = usage_of(end)
        return usage, end, b'"error"' in end

    def told(self) -> Sent | None:
        """All that the client has; None where nothing could go on from it."""
        if (sent := self.sent) is not None and self._pieces:
            sent.keep(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0
        return sent
