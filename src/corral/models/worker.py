"""One connection's work: take a part of the file, fetch it, write it, until there is nothing left to take."""

from __future__ import annotations

from typing import Protocol

from corral.clock import monotonic
from corral.errors import RegistryError
from corral.models.attempts import Attempts
from corral.models.control import Control
from corral.models.partfile import PartFile
from corral.models.spans import Span
from corral.models.stream import Stream

BUFFER_BYTES = 1<<20
FLUSH_S = 1.0
"""What has come is written at least this often, so that a slow download is seen to move."""


class Shared(Protocol):
    """What the connections of one download have in common."""

    part: PartFile
    control: Control
    attempts: Attempts

    def take(self) -> Span | None:
        """The next part, or None when this worker should end."""
        ...

    def open(self, span: Span) -> Stream | None:
        """An answer for `span`; None when the server turned out to give whole files only: take again."""
        ...

    def keeps(self, stream: Stream, span: Span) -> bool:
        """Whether `span` can be read from `stream` too."""
        ...

    def close(self, stream: Stream) -> None: ...

    def failed(self, error: RegistryError, number: int) -> None:
        """Raises `error` when trying again is no use."""
        ...


class Worker:
    """Used by one thread."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._stream: Stream | None = None
        part = shared.part
        self._buffer = memoryview(bytearray(max(1, min(BUFFER_BYTES, part.chunk_bytes, part.size))))

    def work(self) -> None:
        """Raises what ends the download: Stopped, StoreError, RegistryError."""
        shared = self._shared
        try:
            while (span := shared.take()) is not None:
                try:
                    number = shared.attempts.begin()
                    try:
                        self._fetch(span)
                    except RegistryError as error:
                        self._close()
                        shared.failed(error, number)
                finally:
                    shared.part.give_back(span)
        finally:
            self._close()

    def _fetch(self, span: Span) -> None:
        shared, part = self._shared, self._shared.part
        if self._stream is None or not shared.keeps(self._stream, span):
            self._close()
            self._stream = shared.open(span)
        if (stream := self._stream) is None:
            return
        stream.skip_to(span.position, self._buffer, shared.control)
        while room := part.room(span, len(self._buffer)):
            filled, flush_at = 0, monotonic() + FLUSH_S
            try:
                while filled < room and (filled == 0 or monotonic() < flush_at):
                    filled += stream.read(self._buffer[filled:room], shared.control)
            finally:  # what came before a failure is good
                if filled:
                    part.write(span, self._buffer[:filled])
                    shared.attempts.moved(filled)
        shared.attempts.settled()

    def _close(self) -> None:
        if self._stream is not None:
            self._shared.close(self._stream)
            self._stream = None
