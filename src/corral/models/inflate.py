"""Decompressing a layer as a stream: memory stays bounded, and so does what may come out of it."""

from __future__ import annotations

import sys
import zlib
from typing import BinaryIO, Final, Protocol

from corral.artifact import Packing
from corral.errors import ManifestError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_RATIO: Final = 100
"""Uncompressed to compressed. Weights reach 1.5, texts 10; only bombs and files of zeros go far beyond."""
FREE_BYTES: Final = 16 << 20  # whatever the ratio
MAX_WINDOW_LOG: Final = 27  # 128 MiB of memory at most, what zstd itself allows unless told otherwise
PIECE_BYTES: Final = 1 << 20


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decoder with the manners of the standard library's newer ones: it keeps what it could not put out."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class Inflated:
    """What a layer's file unpacks to, read front to back. The caller owns the file; `size` is its bytes.

    Every read raises ManifestError when the stream is damaged or gives more than `MAX_RATIO` times its size.
    """

    def __init__(self, file: BinaryIO, packing: Packing, size: int) -> None:
        self._file = file
        self._packing = packing
        self._decoder = self._new_decoder()
        self._buffer = b""
        self._given = 0
        self._pending = False  # the decoder may hold more than it has put out
        self.limit = size if self._decoder is None else MAX_RATIO * size + FREE_BYTES

    @property
    def left(self) -> int:
        """The most that may still come."""
        return self.limit - self._given

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end."""
        pieces = []
        while count > 0:
            if not self._buffer:
                self._buffer = self._next()
                if not self._buffer:
                    break
            piece, self._buffer = self._buffer[:count], self._buffer[count:]
            pieces.append(piece)
            count -= len(piece)
        data = b"".join(pieces)
        self._given += len(data)
        if self._given > self.limit:
            raise damaged(f"it unpacks to more than {MAX_RATIO} times its size", hint="this looks like a trap")
        return data

    def _new_decoder(self) -> _Decoder | None:
        if self._packing == "tar+gzip":
            return _Gzip()
        if self._packing == "tar+zstd":
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})
        return None

    def _next(self) -> bytes:
        """More bytes, at most `PIECE_BYTES`; none at the end."""
        if self._decoder is None:
            return self._file.read(PIECE_BYTES)
        rest = b""
        while True:
            if self._decoder.eof:  # of this member or frame; another may follow
                rest = (self._decoder.unused_data + rest) or self._file.read(PIECE_BYTES)
                if not rest.strip(b"\0"):
                    return b""
                self._decoder, self._pending = self._new_decoder(), False
                assert self._decoder is not None
            elif not self._pending and not rest:
                rest = self._file.read(PIECE_BYTES)
                if not rest:
                    raise damaged("it ends in the middle of its compressed data")
            try:
                data = self._decoder.decompress(rest, PIECE_BYTES)
            except (zlib.error, zstd.ZstdError) as error:
                raise damaged(f"it cannot be decompressed ({error})") from error
            rest, self._pending = b"", len(data) == PIECE_BYTES
            if data:
                return data


def damaged(
    what: str, *, hint: str = "its packager made a mistake, or means harm; nothing of it is used"
) -> ManifestError:
    """The error for an archive that is refused."""
    return ManifestError(f"an archive of the model is refused: {what}", hint=hint)
