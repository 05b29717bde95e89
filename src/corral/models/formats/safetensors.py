"""Safetensors models: `read_safetensors` reads the header of one file, `read_directory` a model's whole directory.

Source: the safetensors format's README (its limits are ours too), and Hugging Face's `config.json` and index files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final

from corral.artifact import safe_path
from corral.errors import ManifestError, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.formats.lookalike import described, opened

MAX_HEADER_BYTES: Final = 100_000_000
MAX_TENSORS: Final = 1 << 18
MAX_DIMENSIONS: Final = 16
MAX_CONFIG_BYTES: Final = 8 << 20
MAX_INDEX_BYTES: Final = 64 << 20
MAX_FILES: Final = 1000
INDEX: Final = "model.safetensors.index.json"
_LENGTH = Struct("<Q")

BITS: Final = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of an element, by type."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a header says, summed up: single tensors are checked and not kept."""

    tensors: int
    parameters: int
    weights_bytes: int
    types: Mapping[str, int] = field(default_factory=dict)  # elements by type
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SafetensorsModel:
    """What a directory of safetensors files and its `config.json` say of the model."""

    directory: Path
    files: tuple[Path, ...]
    shape: Shape
    architecture: str  # `model_type`, such as "llama"
    context_length: int | None
    quantization: str  # "bf16", or the method when the config names one
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_safetensors(path: Path) -> Shape:
    """The header of one file, every offset checked against its size. Blocks for a read of the header.

    Raises ModelFileError for anything that is no sound safetensors file.
    """
    with opened(path) as file:
        try:
            return _read(file, path, path.stat().st_size)
        except OSError as error:
            raise _fault(path, f"reading it failed ({error.strerror})", "Check the disk.") from error


def read_directory(directory: Path) -> SafetensorsModel:
    """The model in `directory`: the files its index names, or else every one there is.

    Raises ModelFileError when one of them is missing or damaged.
    """
    index = directory / INDEX
    names = _indexed(index) if index.exists() else sorted(each.name for each in directory.glob("*.safetensors"))
    if not names:
        raise ModelFileError(f"{directory} has no safetensors files", hint="Name the directory of a whole model.")
    if len(names) > MAX_FILES:
        raise ModelFileError(f"{directory} has {len(names)} safetensors files", hint=f"{MAX_FILES} are allowed.")
    files = tuple(directory / name for name in names)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        what = f"{directory} lacks {len(missing)} of its {len(files)} safetensors files"
        raise ModelFileError(what, hint=f"Download them too: {', '.join(missing[:8])}")
    return _model(directory, files)


def read_alone(path: Path) -> SafetensorsModel:
    """The model whose weights are all in the file at `path`, its `config.json` beside it. Raises ModelFileError."""
    return _model(path.parent, (path,))


def _model(directory: Path, files: tuple[Path, ...]) -> SafetensorsModel:
    shapes = [read_safetensors(file) for file in files]
    types: dict[str, int] = {}
    for shape in shapes:
        for kind, count in shape.types.items():
            types[kind] = types.get(kind, 0) + count
    whole = Shape(
        sum(shape.tensors for shape in shapes),
        sum(shape.parameters for shape in shapes),
        sum(shape.weights_bytes for shape in shapes),
        types,
        sum(shape.file_bytes for shape in shapes),
    )
    config = _json(directory / "config.json", MAX_CONFIG_BYTES) if (directory / "config.json").exists() else {}
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    context = config.get("max_position_embeddings", inner.get("max_position_embeddings"))
    family = config.get("model_type")
    return SafetensorsModel(
        directory,
        files,
        whole,
        architecture=family[:100] if isinstance(family, str) else "",
        context_length=context if isinstance(context, int) and 0 < context < 1 << 31 else None,
        quantization=_quantization(config, types),
        config=config,
    )


def _read(file: BinaryIO, path: Path, size: int) -> Shape:
    start = file.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        raise _fault(path, described(start, size)[0] if not start else "it is cut short")
    (length,) = _LENGTH.unpack(start)
    if length > MAX_HEADER_BYTES or length > size - _LENGTH.size:
        raise _fault(path, *_instead(start + file.read(504), length, size))
    data = bytearray()
    while len(data) < length:
        piece = file.read(min(length - len(data), 1 << 20))
        if not piece:
            raise _fault(path, "it shrank while it was read")
        data += piece
    if data[:1] != b"{":
        raise _fault(path, *_instead(start + bytes(data[:504]), length, size))
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _fault(path, "its header is no JSON") from error
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _fault(path, f"it claims {len(header):,} tensors")
    return _checked(header, path, size - _LENGTH.size - length, size)


def _instead(start: bytes, length: int, size: int) -> tuple[str, str]:
    """What a file is that does not begin as it should, with a hint."""
    what, hint = described(start, size)
    if start[8:9] == b"{" or what.startswith("it begins"):
        return f"its header claims {length:,} bytes and the file has {size:,}", "Fetch the file again."
    return what, hint


def _checked(header: Mapping[str, Any], path: Path, room: int, size: int) -> Shape:
    spans: list[tuple[int, int]] = []
    types: dict[str, int] = {}
    for name, tensor in header.items():
        sound = isinstance(tensor, dict) and isinstance(tensor.get("shape"), list)
        kind = tensor.get("dtype") if sound else None
        if not isinstance(kind, str) or kind not in BITS:
            raise _fault(path, f"the tensor {name[:80]!r} has the unknown type {str(kind)[:20]!r}", "Update Corral.")
        shape, span = tensor["shape"], tensor.get("data_offsets")
        if len(shape) > MAX_DIMENSIONS or not all(_whole(length) for length in shape):
            raise _fault(path, f"the tensor {name[:80]!r} has an absurd shape")
        if not isinstance(span, list) or len(span) != 2 or not all(_whole(end) for end in span):
            raise _fault(path, f"the tensor {name[:80]!r} does not say where it lies")
        elements = math.prod(shape)
        if span[1] > room:
            raise _fault(path, f"it is truncated: its tensors need {span[1]:,} bytes and {room:,} are there")
        if (span[1] - span[0]) * 8 != elements * BITS[kind]:
            raise _fault(path, f"the tensor {name[:80]!r} does not fill its place")
        spans.append((span[0], span[1]))
        types[kind] = types.get(kind, 0) + elements
    end = 0
    for begin, after in sorted(spans):
        if begin != end:
            raise _fault(path, "its tensors overlap or leave a gap")
        end = after
    return Shape(len(header), sum(types.values()), end, types, size)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 50


def _indexed(index: Path) -> list[str]:
    weights = _json(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise ModelFileError(f"{index} names no files", hint="Download it again.")
    try:
        names = sorted({safe_path(name) for name in weights.values()})
    except ManifestError as error:
        raise ModelFileError(f"{index} is refused: {error.message}", hint=error.hint) from error
    return names


def _json(path: Path, limit: int) -> dict[str, Any]:
    with opened(path) as file:
        data = bytearray()
        while piece := file.read(1 << 20):
            data += piece
            if len(data) > limit:
                raise ModelFileError(f"{path} has more than {limit:,} bytes", hint="It is no model's file.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is no JSON", hint="Download it again.") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} is no JSON object", hint="Download it again.")
    return value


def _quantization(config: Mapping[str, Any], types: Mapping[str, int]) -> str:
    quantized = config.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    if isinstance(method, str) and 0 < len(method) < 40:
        return method
    return max(types, key=types.__getitem__, default="").lower()


def _fault(path: Path, what: str, hint: str = "Download or convert the file again.") -> ModelFileError:
    return ModelFileError(f"{path} is no usable safetensors file: {what}", hint=hint, reason=what)
