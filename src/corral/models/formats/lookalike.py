"""Telling what a path or a file is when it is no GGUF file."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from corral.errors import ModelFileError

_DOWNLOAD = "The download went wrong; fetch the model file itself."
_CONVERT = "llama.cpp's convert_hf_to_gguf.py makes a GGUF file from it, or download the model as GGUF."
_UNPACK = "Unpack it first."
_CHOOSE = "The source of a model must be a .gguf file."

_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "it is a git-lfs pointer, not the file it points to", "Run `git lfs pull` there."),
    (b"<!doctype html", "it is an HTML page", _DOWNLOAD),
    (b"<html", "it is an HTML page", _DOWNLOAD),
    (b"<?xml", "it is an XML document", _DOWNLOAD),
    (b"pk\x03\x04", "it is a zip archive, perhaps a PyTorch checkpoint", _CONVERT),
    (b"\x80\x02", "it is a Python pickle, perhaps a PyTorch checkpoint", _CONVERT),
    (b"\x1f\x8b", "it is gzip-compressed", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "it is zstd-compressed", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive", _UNPACK),
    (b"\xfd7zxz\x00", "it is xz-compressed", _UNPACK),
    (b"\x89hdf", "it is an HDF5 file", _CONVERT),
    (b"lmgg", "it is in the old GGML format", "Convert the model again; engines no longer read this."),
    (b"fmgg", "it is in the old GGMF format", "Convert the model again; engines no longer read this."),
    (b"tjgg", "it is in the old GGJT format", "Convert the model again; engines no longer read this."),
    (b"algg", "it is an old GGML adapter", _CHOOSE),
    (b"\x7felf", "it is a program", _CHOOSE),
    (b"onnx", "it is an ONNX model", _CHOOSE),
)


def described(start: bytes, size: int) -> tuple[str, str]:
    """`(what, hint)` for a file of `size` bytes that begins with `start` and is no GGUF file."""
    if size == 0:
        return "it is empty", _DOWNLOAD
    lower = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what, hint in _STARTS:
        if start.lower().startswith(magic) or lower.startswith(magic):
            return what, hint
    if len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < max(size, 1 << 27):
        return "it is a safetensors file", _CONVERT
    if not any(start):
        return "it begins with nothing but zeros", "The download did not finish; fetch the file again."
    if lower.startswith((b"{", b"[")):
        return "it is JSON text", _CHOOSE
    if _is_text(start):
        return f"it is text that begins {start[:24].decode(errors='replace')!r}", _CHOOSE
    return f"it begins with {start[:4]!r} instead of b'GGUF'", "Check that this is the right file, and fetch it again."


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError as exc:
        if exc.start < len(start) - 4:  # a character cut at the end is no reason
            return False
        text = start[: exc.start].decode()
    return all(char.isprintable() or char.isspace() for char in text)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading; unbuffered, for `Source` reads in large pieces.

    Raises ModelFileError when there is none that can be read. Never blocks on a pipe.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{path} is a directory, not a model file", hint=_inside(path), reason="directory")
        if not stat.S_ISREG(mode):
            raise ModelFileError(f"{path} is not a regular file", hint=_CHOOSE, reason="special file")
        file = path.open("rb", buffering=0)
    except FileNotFoundError as exc:
        raise ModelFileError(f"there is no file {path}", hint=_beside(path), reason="missing") from exc
    except PermissionError as exc:
        hint = f"Give the user that runs Corral the right to read it: chmod a+r {path}"
        raise ModelFileError(f"{path} may not be read", hint=hint, reason="not readable") from exc
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"{path} cannot be opened: {exc}", hint=_CHOOSE, reason="cannot be opened") from exc
    with file:
        yield file


def _models_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".gguf" and entry.is_file())[
            :1000
        ]
    except OSError:
        return []


def _inside(folder: Path) -> str:
    names = _models_in(folder)
    return f"Name a file in it, such as {names[0]}." if names else _CHOOSE


def _beside(path: Path) -> str:
    near = difflib.get_close_matches(path.name, _models_in(path.parent), n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]} in the same folder?"
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist either; check the path."
    return "Check the path under `source`, or download the model there."
