"""Bounded reading of a file from front to back: every length is checked before a byte is read.

Plain reads, not a memory map: a file that shrinks under a map would kill the whole process.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, BinaryIO

from corral.errors import ModelFileError

CHUNK_BYTES = 256 * 1024
MAX_KEPT_BYTES = 64 << 20  # all strings of one header together
_LENGTH = Struct("<Q")


class Source:
    """A position in an open file of `size` bytes. Not thread-safe; the caller owns the file."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.size = size
        self.name = name
        self._file = file
        self._buffer = b""
        self._start = 0  # where the buffer begins in the file
        self._at = 0  # within the buffer
        self._kept_bytes = 0

    @property
    def position(self) -> int:
        return self._start + self._at

    @property
    def left(self) -> int:
        return self.size - self.position

    def fault(self, what: str, *, hint: str = "Download or convert the file again.") -> ModelFileError:
        """The error to raise for this file, with the place where it was noticed."""
        message = f"{self.name} is no usable GGUF file: {what}"
        return ModelFileError(message, hint=hint, reason=what, offset=self.position)

    def cut_short(self, need: int) -> ModelFileError:
        """The error for a header that goes on after the end of the file; `need` is the least size it should have."""
        what = f"it is truncated: its header needs at least {need:,} bytes and the file has {self.size:,}"
        return self.fault(what, hint="The download or copy was cut short; fetch the file again.")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self._at + count > len(self._buffer):
            self._refill(count)
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def rewind(self, position: int) -> None:
        """Go back to `position`, which the last `take` must have covered."""
        self._at = position - self._start

    def skip(self, count: int) -> None:
        """Go on after the next `count` bytes without reading them."""
        if count > self.left:
            raise self.cut_short(self.position + count)
        self._at += count

    def unpack(self, form: Struct) -> tuple[Any, ...]:
        """The next fields of fixed size."""
        if self._at + form.size > len(self._buffer):
            self._refill(form.size)
        fields = form.unpack_from(self._buffer, self._at)
        self._at += form.size
        return fields

    def string(self, limit: int, what: str) -> bytes:
        """The next string: a length and that many bytes. `what` names it in the error."""
        (length,) = self.unpack(_LENGTH)
        if length > limit:
            raise self.fault(f"{what} claims to be {length:,} bytes long")
        self._kept_bytes += length
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise self.fault(f"its header holds more than {MAX_KEPT_BYTES:,} bytes of text")
        return self.take(length)

    def skip_strings(self, count: int) -> None:
        """Go on after the next `count` strings: a vocabulary costs time, about 0.1 µs a token, and no memory."""
        length_at = _LENGTH.unpack_from
        while count:
            if self._at + _LENGTH.size > len(self._buffer):
                self._refill(_LENGTH.size)
            buffer, at, last = self._buffer, self._at, len(self._buffer) - _LENGTH.size
            while count and at <= last:
                at += length_at(buffer, at)[0] + 8
                count -= 1
            self._at = at
            if self.left < 0:
                raise self.cut_short(self.position)

    def _refill(self, count: int) -> None:
        position = self.position
        if count > self.left:
            raise self.cut_short(position + count)
        self._file.seek(position)
        self._buffer = self._file.read(min(max(count, CHUNK_BYTES), self.left))
        self._start, self._at = position, 0
        if len(self._buffer) < count:
            raise self.fault("it shrank while it was read", hint="Wait until the file is complete.")
