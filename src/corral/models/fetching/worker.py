"""One connection's work: take a part of the file, fetch it, write it, until there is nothing left to take."""

from __future__ import annotations

from typing import Protocol

from corral.clock import monotonic
from corral.errors import RegistryError
from corral.models.fetching.attempts import Attempts
from corral.models.fetching.control import Control
from corral.models.fetching.following import Handed, Hasher
from corral.models.fetching.partfile import PartFile
from corral.models.fetching.past_cache import ALIGN, aligned_buffer
from corral.models.fetching.spans import Span
from corral.models.fetching.stream import Stream

BUFFER_BYTES = 128 << 10
"""Small enough to stay in the processor's cache between the two copies: with 1 MiB they took half as long again."""
STEP_BYTES = 1 << 20
STEP_S = 1.0
"""How much, and how long, a worker goes on before it tells the others, so that a slow download is seen to move."""

LARGE_BYTES = 2 << 20
LARGE_BUFFERS = 4
"""What a worker writes past the page cache at once, and how much of that may wait to be hashed."""
GIGABIT_BYTES_PER_S = 125e6
"""Beyond this a worker begins with such writes; below half of it, it leaves off."""
LOOK_BYTES = 8 << 20
LOOK_S = 1.0


class Shared(Protocol):
    """What the connections of one download have in common."""

    part: PartFile
    hasher: Hasher
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
        self._large: list[memoryview] | None = None  # those that nobody hashes now; None: not needed so far
        self._fast = False
        self._looked, self._looked_s = 0, monotonic()  # bytes since then

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
        while room := part.room(span, min(LARGE_BYTES if self._fast else STEP_BYTES, part.chunk_bytes)):
            large = self._large_buffer(span) if self._fast else None
            if large is None:
                self._look(self._step(span, stream, min(room, STEP_BYTES)))
            else:
                self._look(self._large_step(span, stream, room, large))
        shared.attempts.settled()

    def _step(self, span: Span, stream: Stream, room: int) -> int:
        """Receives and writes up to `room` bytes of `span`, and moves it on by what was written; how much it was."""
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
        return written + filled

    def _large_step(self, span: Span, stream: Stream, room: int, buffer: memoryview) -> int:
        """As `_step`, written past the page cache and handed over to be hashed."""
        part, hasher = self._shared.part, self._shared.hasher
        position, filled, until = span.position, 0, monotonic() + STEP_S
        room = min(room, len(buffer) - position % ALIGN)  # the next one begins where such writes may
        handed = False
        try:
            while filled < room and monotonic() < until:
                filled += stream.read(buffer[filled:room], self._shared.control)
        finally:
            if filled:
                part.put_past_cache(position, buffer[:filled])
                with part.changed:
                    part.advance(span, filled)
                    hasher.hand(Handed(position, buffer[:filled], lambda: self._release(buffer)))
                    handed = True
                self._shared.attempts.moved(filled)
            if not handed:
                self._release(buffer)
        return filled

    def _large_buffer(self, span: Span) -> memoryview | None:
        """A free one, waited for; None when what comes next goes the common way."""
        part, hasher = self._shared.part, self._shared.hasher
        with part.changed:
            if not part.past_cache.works or not hasher.takes(span.position):
                return None
            if self._large is None:
                self._large = [aligned_buffer(LARGE_BYTES) for _ in range(LARGE_BUFFERS)]
            free = self._large
            part.changed.wait_for(lambda: free or hasher.ended)
            return free.pop() if free else None

    def _release(self, buffer: memoryview) -> None:
        with self._shared.part.changed:
            if self._large is not None:
                self._large.append(buffer)
                self._shared.part.changed.notify_all()

    def _look(self, count: int) -> None:
        """Takes `count` more bytes into account for how fast it goes."""
        self._looked += count
        took_s = monotonic() - self._looked_s
        if self._looked >= LOOK_BYTES or took_s >= LOOK_S:
            self._fast = self._looked > took_s * GIGABIT_BYTES_PER_S / (2 if self._fast else 1)
            self._looked, self._looked_s = 0, monotonic()

    def _close(self) -> None:
        if self._stream is not None:
            self._shared.close(self._stream)
            self._stream = None
