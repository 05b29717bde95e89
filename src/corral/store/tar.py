"""Tar archives, written and read as streams; reading is bounded and believes nothing.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Protocol

from corral.errors import ArchiveRefused
from corral.lazy_dataclass import dataclass

BLOCK = 512
MAX_ENTRIES = 1_000_000
MAX_EXTENDED_BYTES = 64 << 10
"""Of a pax header, which is read whole; names and sizes of blobs need a few hundred bytes."""
_SKIP_BYTES = 1 << 20


class Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


class Writable(Protocol):
    def write(self, data: bytes | memoryview, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A plain file of an archive; read it before asking for the next."""

    name: str
    size: int


class Reader:
    """The plain files of a tar stream, in order. Directories are passed over, anything else is refused."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left = 0  # of the current entry
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Raises ArchiveRefused for whatever no store ever writes: links, devices, paths that lead out, damage."""
        extended: dict[str, str] = {}
        for _ in range(MAX_ENTRIES):
            self._finish()
            block = self._exactly(BLOCK, may_end=True)
            if not block.strip(b"\0"):
                return  # the end, or nothing at all
            kind, name, size = _header(block)
            if kind in (b"x", b"g", b"L", b"K"):
                if size > MAX_EXTENDED_BYTES:
                    raise refused(f"it has an extended header of {size} bytes")
                data = self._exactly(size)
                self._exactly(-size % BLOCK)
                if kind == b"x":
                    extended = _pax(data)
                elif kind == b"L":
                    extended["path"] = _text(data.rstrip(b"\0"))
                continue
            name = extended.get("path", name)
            size = _size(extended["size"]) if "size" in extended else size
            extended_sparse = any(key.startswith("GNU.sparse") for key in extended)
            extended = {}
            name = _safe(name)
            if kind == b"5":
                size = 0
            elif kind not in (b"0", b"\0", b"7") or extended_sparse:
                raise refused(f"{name[:200]!r} is a link, a device or another thing that is no plain file")
            self._left, self._padding = size, -size % BLOCK
            if kind != b"5":
                yield Entry(name, size)
        raise refused(f"it has more than {MAX_ENTRIES} entries")

    def read(self, count: int) -> bytes:
        """Up to `count` bytes of the current entry; nothing at its end. Raises ArchiveRefused when it is cut short."""
        data = self._stream.read(min(count, self._left)) if self._left else b""
        if self._left and not data:
            raise refused("it is cut short")
        self._left -= len(data)
        return data

    def _finish(self) -> None:
        while self.read(_SKIP_BYTES):
            pass
        self._exactly(self._padding)
        self._padding = 0

    def _exactly(self, count: int, *, may_end: bool = False) -> bytes:
        data = b""
        while len(data) < count:
            more = self._stream.read(count - len(data))
            if not more:
                if may_end and not data:
                    return b""
                raise refused("it is cut short")
            data += more
        return data


def write_header(out: Writable, name: str, size: int) -> None:
    """The header of a plain file. The same for the same name and size, whoever writes it and whenever."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    out.write(info.tobuf(tarfile.PAX_FORMAT))


def write_padding(out: Writable, size: int) -> None:
    """What follows the data of a file of `size` bytes."""
    out.write(bytes(-size % BLOCK))


def write_end(out: Writable) -> None:
    out.write(bytes(2 * BLOCK))


def refused(why: str) -> ArchiveRefused:
    return ArchiveRefused(
        f"this archive is refused: {why}", hint="`corral export` and `skopeo copy … oci-archive:FILE` write good ones"
    )


def _header(block: bytes) -> tuple[bytes, str, int]:
    said = _number(block[148:156])
    if said != sum(block[:148]) + sum(block[156:]) + 8 * 0x20:
        compressed = block[:2] == b"\x1f\x8b" or block[:4] == b"\x28\xb5\x2f\xfd"
        raise refused("it is compressed; unpack it first" if compressed else "it is no tar archive, or damaged")
    name = _text(block[:100].split(b"\0")[0])
    if block[257:262] == b"ustar" and block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0")[0]):
        name = f"{_text(prefix)}/{name}"
    return block[156:157], name, _number(block[124:136])


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for sizes of 8 GiB and more
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if value >= 1 << 60:
            raise refused("a number in a header is absurd")
        return value
    digits = field.strip(b" \0")
    if any(byte not in b"01234567" for byte in digits):  # int() would take signs and underscores too
        raise refused("a number in a header is none")
    return int(digits or b"0", 8)


def _pax(data: bytes) -> dict[str, str]:
    found, at = {}, 0
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        length = _size(_text(digits))
        record = data[at : at + length]
        if length <= len(digits) + 1 or len(record) != length or not record.endswith(b"\n"):
            raise refused("an extended header is damaged")
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        # Others, such as extended attributes, may hold any bytes.
        found[key.decode(errors="replace")] = _text(value) if key in (b"path", b"size") else ""
        at += length
    return found


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise refused("a size in an extended header is none")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise refused("a name is no UTF-8 text") from None


def _safe(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise refused(f"{name[:200]!r} leads out of it")
    return "/".join(parts)
