"""GGUF headers: `read_header` tells all that a file says about itself, or why it cannot be used.

Source: the GGUF specification (ggml `docs/gguf.md`), versions 2 and 3, and the checks of ggml's own reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import Final

from corral.errors import ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf_source import Source
from corral.models.formats.gguf_types import ARRAY, FILE_TYPES, SCALARS, STRING, TENSOR_TYPES
from corral.models.formats.lookalike import described, opened

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MIN_PAIR_BYTES: Final = 8 + 4 + 1
MIN_TENSOR_BYTES: Final = 8 + 4 + 8 + 4 + 8
MAX_PAIRS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 17
MAX_KEY_BYTES: Final = 1 << 16  # as the specification has it
MAX_STRING_BYTES: Final = 16 << 20
MAX_STRINGS: Final = 1 << 23  # in one array; the largest vocabularies have about 2^18 tokens
MAX_DIMENSIONS: Final = 4
KEPT_NUMBERS: Final = 1024  # longer arrays are only measured; per-layer figures are far shorter
KEPT_STRINGS: Final = 64

_COUNTS = Struct("<IQQ")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_ARRAY = Struct("<IQ")
_PLACE = Struct("<IQ")
_DIMENSIONS = tuple(Struct(f"<{count}Q") for count in range(MAX_DIMENSIONS + 1))
_SCALARS = {number: Struct(f"<{code}") for number, (_, code) in SCALARS.items()}


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that was measured and not kept, such as a vocabulary."""

    element: str  # "string", "float32" …
    length: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One matrix; `shape` is in ggml's order, rows' length first; `offset` counts from the file's `data_offset`."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says about itself."""

    version: int
    architecture: str  # "" in a shard other than the first
    tensors: tuple[Tensor, ...] = field(repr=False)
    data_offset: int
    file_bytes: int
    metadata: Mapping[str, Value] = field(repr=False)

    def get(self, key: str) -> Value | None:
        """The value of `key`, where `{arch}` stands for the architecture, such as `{arch}.context_length`."""
        return self.metadata.get(key.replace("{arch}", self.architecture))

    def integer(self, key: str) -> int | None:
        """The value of `key` when it is a whole number."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """The value of `key` when it is a string."""
        value = self.get(key)
        return value if isinstance(value, str) else None

    @property
    def name(self) -> str | None:
        return self.text("general.name")

    @property
    def context_length(self) -> int | None:
        """The longest context the model was made for, in tokens."""
        return self.integer("{arch}.context_length")

    @property
    def chat_template(self) -> str | None:
        return self.text("tokenizer.chat_template")

    @property
    def vocabulary(self) -> int | None:
        """The number of tokens the model knows."""
        tokens = self.get("tokenizer.ggml.tokens")
        if isinstance(tokens, LongArray):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self.integer("{arch}.vocab_size")

    @property
    def quantization(self) -> str:
        """How people name the file's quantization, such as `Q4_K_M`; else the type that most of its bytes have."""
        file_type = self.integer("general.file_type")
        if file_type in FILE_TYPES:
            return FILE_TYPES[file_type]
        by_type: dict[str, int] = {}
        for tensor in self.tensors:
            by_type[tensor.type] = by_type.get(tensor.type, 0) + tensor.bytes
        return max(by_type, key=by_type.__getitem__, default="unknown")

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`. Blocks: a few milliseconds, more for a file that is not cached.

    Reads the header only, keeps no vocabulary, and checks that the file is long enough for all of its tensors.

    Raises ModelFileError for anything that is not such a file, and says what it is instead.
    """
    with opened(path) as file:
        size = path.stat().st_size
        source = Source(file, size, str(path))
        try:
            return _read(source)
        except OSError as exc:
            raise source.fault(f"reading it failed ({exc.strerror})", hint="Check the disk.") from exc


def _read(source: Source) -> Header:
    start = source.take(min(source.size, 512))
    if start[:4] != MAGIC:
        what, hint = described(start, source.size)
        raise ModelFileError(f"{source.name} is not a GGUF file: {what}", hint=hint, reason=what)
    source.rewind(4)
    version, tensor_count, pair_count = source.unpack(_COUNTS)
    _check_version(source, version)
    if pair_count > MAX_PAIRS:
        raise source.fault(f"it claims {pair_count:,} metadata entries")
    if tensor_count > MAX_TENSORS:
        raise source.fault(f"it claims {tensor_count:,} tensors")
    least = pair_count * MIN_PAIR_BYTES + tensor_count * MIN_TENSOR_BYTES
    if least > source.left:
        raise source.cut_short(source.position + least)
    metadata = _read_metadata(source, pair_count)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise source.fault(f"its alignment is {alignment!r}, which is no power of two")
    tensors = _read_tensors(source, tensor_count, alignment)
    data_offset = -(-source.position // alignment) * alignment
    end = data_offset + (tensors[-1].offset + tensors[-1].bytes if tensors else 0)
    if tensors and end > source.size:
        what = f"it is truncated: its tensors need {end:,} bytes and the file has {source.size:,}"
        raise source.fault(what, hint="The download or copy was cut short; fetch the file again.")
    architecture = metadata.get("general.architecture", "")
    if not isinstance(architecture, str) or not (architecture or "split.no" in metadata):
        raise source.fault("it does not say which architecture it is (general.architecture)")
    return Header(version, architecture, tensors, data_offset, source.size, MappingProxyType(metadata))


def _check_version(source: Source, version: int) -> None:
    if version in VERSIONS:
        return
    if version and version & 0xFFFF == 0:
        raise source.fault("it is big-endian", hint="Get the little-endian file; this machine cannot use this one.")
    if version == 1:
        raise source.fault("it has the early version 1 of the format", hint="Convert the model again.")
    raise source.fault(f"it has version {version} of the format, and 2 and 3 are known", hint="Update Corral.")


def _read_metadata(source: Source, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        raw = source.string(MAX_KEY_BYTES, "a metadata key")
        try:
            key = raw.decode()
        except UnicodeDecodeError as exc:
            raise source.fault(f"a metadata key is not UTF-8: {raw[:40]!r}") from exc
        if not key or key in metadata:
            raise source.fault(f"the metadata key {key!r} occurs twice" if key else "a metadata key is empty")
        (number,) = source.unpack(_U32)
        metadata[key] = _read_array(source, key) if number == ARRAY else _read_scalar(source, number, key)
    return metadata


def _read_scalar(source: Source, number: int, key: str) -> Scalar:
    if number == STRING:
        return source.string(MAX_STRING_BYTES, key).decode(errors="replace")
    form = _SCALARS.get(number)
    if form is None:
        raise source.fault(f"{key} has the unknown value type {number}")
    value: Scalar = source.unpack(form)[0]
    return value


def _read_array(source: Source, key: str) -> Value:
    number, length = source.unpack(_ARRAY)
    if number == STRING:
        if length > min(MAX_STRINGS, source.left // _U64.size):
            raise source.fault(f"{key} claims {length:,} strings")
        if length > KEPT_STRINGS:
            source.skip_strings(length)
            return LongArray("string", length)
        return tuple(source.string(MAX_STRING_BYTES, key).decode(errors="replace") for _ in range(length))
    if number not in SCALARS:
        raise source.fault(f"{key} is an array of the unknown type {number}")
    name, code = SCALARS[number]
    width = _SCALARS[number].size
    if length > source.left // width:
        raise source.cut_short(source.position + length * width)
    if length > KEPT_NUMBERS:
        source.skip(length * width)
        return LongArray(name, length)
    return source.unpack(Struct(f"<{length}{code}"))


def _read_tensors(source: Source, count: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    names: set[str] = set()
    expected = 0
    for _ in range(count):
        tensor = _read_tensor(source)
        if tensor.name in names:
            raise source.fault(f"the tensor {tensor.name!r} occurs twice")
        # Engines want the tensors one after another; with that, no two can overlap.
        if tensor.offset != expected:
            raise source.fault(f"the tensor {tensor.name!r} is at {tensor.offset:,} instead of {expected:,}")
        names.add(tensor.name)
        tensors.append(tensor)
        expected = -(-(tensor.offset + tensor.bytes) // alignment) * alignment
    return tuple(tensors)


def _read_tensor(source: Source) -> Tensor:
    raw = source.string(MAX_KEY_BYTES, "a tensor's name")
    try:
        name = raw.decode()
    except UnicodeDecodeError as exc:
        raise source.fault(f"a tensor's name is not UTF-8: {raw[:40]!r}") from exc
    (dimensions,) = source.unpack(_U32)
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise source.fault(f"the tensor {name!r} claims {dimensions:,} dimensions")
    shape = source.unpack(_DIMENSIONS[dimensions])
    number, offset = source.unpack(_PLACE)
    if number not in TENSOR_TYPES:
        hint = "A newer Corral or engine may know it; else convert or download the model in another quantization."
        raise source.fault(f"the tensor {name!r} has the unknown type {number}", hint=hint)
    kind, block, block_bytes = TENSOR_TYPES[number]
    elements = math.prod(shape)
    if not 0 < elements < 1 << 50:
        raise source.fault(f"the tensor {name!r} has the absurd shape {shape}")
    if shape[0] % block:
        raise source.fault(
            f"the rows of the tensor {name!r} are {shape[0]:,} long, no multiple of {block} as {kind} needs"
        )
    return Tensor(name, shape, kind, offset, elements // block * block_bytes)
