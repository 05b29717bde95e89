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

BUFFER_BYTES = 128 << 10
"""Small enough to stay in the processor's cache between the two copies: with 1 MiB they took half as long again."""
STEP_BYTES = 1 << 20
STEP_S = 1.0
"""How much, and how long, a worker goes on before it tells the others, so that a slow download is seen to move."""


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
        while room := part.room(span, min(STEP_BYTES, part.chunk_bytes)):
            self._step(span, stream, room)
        shared.attempts.settled()

    def _step(self, span: Span, stream: Stream, room: int) -> None:
        """Receives and writes up to `room` bytes of `span`, and moves it on by what was written."""
        part, buffer = self._shared.part, self._buffer
        written, filled, until = 0, 0, monotonic() + STEP_S
        try:
            while written + filled < room and monotonic() < until:
                filled += stream.read(buffer[filled : room - written], self._shared.control)
                if filled == len(buffer):
                    part.put(span.position + written, buffer)
                    written, filled = written + filled, 0
        finally:  # what came before a failure is good
            if filled:
                part.put(span.position + written, buffer[:filled])
            if written + filled:
                part.advance(span, written + filled)
                self._shared.attempts.moved(written + filled)

    def _close(self) -> None:
        if self._stream is not None:
            self._shared.close(self._stream)
            self._stream = None
