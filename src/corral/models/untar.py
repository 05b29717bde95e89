"""Unpacking a tar layer into a directory: plain files and directories only, nothing outside, everything bounded.

A reader of its own, because the standard library's believes an extended header's size before reading it.
Source: POSIX pax (IEEE Std 1003.1), GNU tar's `tar.h` for its long names and large sizes.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral.artifact import safe_path
from corral.errors import DiskFull
from corral.models.inflate import PIECE_BYTES, Inflated, damaged
from corral.store.durable import disk_errors, sync_file
from corral.units import show_bytes

BLOCK: Final = 512
MAX_HEADERS: Final = 20_000
MAX_EXTENDED_BYTES: Final = 256 << 10  # of one pax header or long name
FILE_MODE: Final = 0o444

_WHAT: Final = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"S": "a sparse file", b"K": "a link", b"D": "a dump of a directory", b"M": "a part of a file", b"V": "a label",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One file that was unpacked; `path` is relative to the directory."""

    path: str
    size: int


@dataclass(slots=True)
class _Extended:
    """What pax and GNU headers say of the entry after them."""

    path: bytes | None = None
    size: int | None = None


def unpack(stream: Inflated, into: Path) -> list[Member]:
    """Writes the archive's files below `into`, each on the disk when this returns. `into` is private to the caller.

    Raises ManifestError for links, devices, absolute and climbing paths, a path that is already there, lying sizes,
    absurd counts; DiskFull. What was written until then stays, for the caller to remove.
    """
    members: list[Member] = []
    said = _Extended()
    for _ in range(MAX_HEADERS):
        header = stream.read(BLOCK)
        if not header.strip(b"\0"):
            return members  # the end, or a block of zeros, which says so
        _check(header)
        kind, size = header[156:157], _number(header[124:136], "size")
        if kind in (b"x", b"g", b"L"):
            said = _extended(stream, kind, size, said)
            continue
        if kind not in (b"0", b"\0", b"7", b"5"):
            raise damaged(
                f"it holds {_WHAT.get(kind, f'an entry of the kind {kind!r}')}, and files are all it may hold"
            )
        name, size = _name(header, said), size if said.size is None else said.size
        said = _Extended()
        if kind == b"5" or name.endswith("/"):
            with disk_errors(f"unpack {name}"):
                make_directories(into, name.rstrip("/"))
            _skip(stream, size)
            continue
        path = safe_path(name)
        _write(stream, into, path, size)
        members.append(Member(path, size))
    raise damaged(f"it has more than {MAX_HEADERS:,} entries")


def _check(header: bytes) -> None:
    if len(header) < BLOCK:
        raise damaged("it is cut short")
    stated = _number(header[148:156], "checksum")
    counted = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if stated != counted:
        raise damaged("it is no tar archive, or damaged")


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # GNU's way for large ones
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
        if field[0] & 0x40 or value >= 1 << 50:
            raise damaged(f"the {what} of an entry is absurd")
        return value
    text = field.strip(b" \0")
    if not all(byte in b"01234567" for byte in text):
        raise damaged(f"the {what} of an entry is no number")
    return int(text or b"0", 8)


def _name(header: bytes, said: _Extended) -> str:
    raw = said.path
    if raw is None:
        raw = header[:100].split(b"\0", 1)[0]
        prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
        raw = prefix + b"/" + raw if prefix else raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise damaged(f"the name {raw[:40]!r} is no UTF-8") from None


def _extended(stream: Inflated, kind: bytes, size: int, said: _Extended) -> _Extended:
    if size > MAX_EXTENDED_BYTES:
        raise damaged(f"a header of it claims {size:,} bytes")
    data = _exactly(stream, size)
    _skip_padding(stream, size)
    if kind == b"L":
        return _Extended(data.rstrip(b"\0"), said.size)
    records = _records(data)
    if any(key.startswith(b"GNU.sparse") for key in records):
        raise damaged("it holds a sparse file")
    path, text = records.get(b"path"), records.get(b"size")
    if kind == b"g":
        if path is not None or text is not None:
            raise damaged("it gives all of its entries one path or size")
        return said
    if text is not None and not (text.isdigit() and len(text) < 16):
        raise damaged("the size of an entry is no number")
    return _Extended(said.path if path is None else path, said.size if text is None else int(text))


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: `<length> <key>=<value>` and a line's end."""
    found: dict[bytes, bytes] = {}
    while data.strip(b"\0"):
        digits, space, _ = data[:12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or length > len(data) or not record.endswith(b"\n"):
            raise damaged("a header of it is damaged")
        found[key] = value[:-1]
        data = data[length:]
    return found


def make_directories(into: Path, name: str) -> None:
    """Makes the directory `name` below `into`, and those above it. Raises ManifestError when a file is in the way."""
    while name.startswith("./"):
        name = name[2:]
    if name in ("", "."):
        return
    at = into
    for part in safe_path(name).split("/"):
        at = at / part
        try:
            at.mkdir(0o755)
        except FileExistsError:
            if at.is_symlink() or not at.is_dir():
                raise damaged(f"the path {name!r} goes through a file") from None


def _write(stream: Inflated, into: Path, path: str, size: int) -> None:
    if size > stream.left:
        raise damaged(f"{path!r} claims {size:,} bytes, more than the archive can hold")
    free = shutil.disk_usage(into).free
    if size > free:
        raise DiskFull(
            f"{path} of the model unpacks to {show_bytes(size)} and {show_bytes(free)} are free",
            hint="free some space (`corral prune`, `corral df`) and try again",
        )
    folder, _, _ = path.rpartition("/")
    with disk_errors(f"unpack {path}"):
        make_directories(into, folder)
        try:
            fd = os.open(into / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except FileExistsError:
            raise damaged(f"two of its files have the path {path!r}") from None
        with os.fdopen(fd, "wb", buffering=0) as file:
            left = size
            while left:
                data = stream.read(min(left, PIECE_BYTES))
                if not data:
                    raise damaged(f"it ends in the middle of {path!r}")
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                left -= len(data)
            sync_file(fd)
    _skip_padding(stream, size)


def _skip(stream: Inflated, size: int) -> None:
    if size > MAX_EXTENDED_BYTES:
        raise damaged("a directory of it has content")
    _exactly(stream, size)
    _skip_padding(stream, size)


def _skip_padding(stream: Inflated, size: int) -> None:
    stream.read(-size % BLOCK)


def _exactly(stream: Inflated, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise damaged("it is cut short")
    return data
