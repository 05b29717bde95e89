"""A Hugging Face model as one GGUF file: weights, vocabulary and figures, by PyPI `gguf`'s tables. Blocks.

It reads and writes one tensor after another, so that it needs no more memory than the largest.

Source: Hugging Face's `config.json` of these families; llama.cpp's conversion for what its graphs expect of them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corral.errors import CallerError, EngineMissing, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.formats.safetensors import SafetensorsModel
from corral.models.making.hf_tokenizer import vocabulary

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    Array = NDArray[Any]

Say = Callable[[str, int, int | None], None]

TYPES: Final = ("F32", "F16", "BF16", "Q8_0")
_HINT: Final = "convert it with llama.cpp's own convert_hf_to_gguf.py, then: corral package FILE -t NAME"


@dataclass(frozen=True, slots=True)
class Family:
    """How one family's weights become llama.cpp's."""

    architecture: str  # llama.cpp's
    permuted: bool  # queries and keys: rotated in pairs of neighbours there, of halves here


FAMILIES: Final[Mapping[str, Family]] = {
    "LlamaForCausalLM": Family("llama", True),
    "MistralForCausalLM": Family("llama", True),
    "Qwen2ForCausalLM": Family("qwen2", False),
    "Qwen3ForCausalLM": Family("qwen3", False),
}
"""By `architectures` of config.json."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str  # llama.cpp's
    file: Path
    type: str  # safetensors'
    shape: tuple[int, ...]
    begin: int  # in the file
    heads: int  # 0, or by how many heads its rows are permuted


def tools() -> tuple[ModuleType, Any]:
    """The packages `gguf` and `numpy`. Raises EngineMissing."""
    try:
        import gguf
        import numpy
    except ImportError as error:
        raise EngineMissing(
            f"converting needs the package {error.name}", hint='install Corral with it: pip install "corral[convert]"'
        ) from error
    return gguf, numpy


class Conversion:
    """One model on its way. Making it reads all headers and refuses what cannot be converted; `write` writes.

    Raises ModelFileError, CallerError, EngineMissing.
    """

    def __init__(self, model: SafetensorsModel, to: str) -> None:
        self._gguf, self._np = tools()
        if to not in TYPES:
            raise CallerError(f"there is no conversion to {to[:40]!r}", hint=f"choose {', '.join(TYPES)}", param="to")
        named = model.config.get("architectures")
        first = named[0] if isinstance(named, list) and named else model.architecture
        family = FAMILIES.get(first) if isinstance(first, str) else None
        if family is None:
            known = ", ".join(each.removesuffix("ForCausalLM") for each in FAMILIES)
            raise ModelFileError(f"Corral cannot convert {first or 'a model without architecture'}; it knows {known}",
                                 hint=_HINT)  # fmt: skip
        if "quantization_config" in model.config:
            raise ModelFileError("its weights are quantized already", hint="convert the model that it was made of")
        self._model, self._family, self.to = model, family, to
        self._config = model.config
        self._tokenizer = _json(model.directory / "tokenizer.json")
        self._heads = self._whole("num_attention_heads")
        self._kv_heads = self._whole("num_key_value_heads", self._heads)
        self._head_size = self._whole("head_dim", self._whole("hidden_size") // self._heads)
        self._vocabulary = vocabulary(self._tokenizer, self._whole("vocab_size"))
        self._factors = self._rope_factors()
        self._tensors = list(self._read())

    @property
    def bytes(self) -> int:
        """What the tensors take when they are written."""
        return sum(self._size(each) for each in self._tensors)

    def write(self, target: Path, name: str, say: Say) -> None:
        """Writes all of it. `say` may raise to end it; a half-written file is then the caller's to remove."""
        writer = self._gguf.GGUFWriter(target, self._family.architecture)
        try:
            self._figures(writer, name)
            self._words(writer)
            if self._factors is not None:
                writer.add_tensor_info(
                    "rope_freqs.weight", self._factors.shape, self._factors.dtype, self._factors.nbytes
                )
            for each in self._tensors:
                kind = self._kind(each)
                shape = self._bytes_shape(each)
                writer.add_tensor_info(each.name, shape, self._np.dtype("uint8"), self._size(each), kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if self._factors is not None:
                writer.write_tensor_data(self._factors)
            done, total = 0, self.bytes
            for number, each in enumerate(self._tensors, 1):
                say(f"converting to {self.to}, tensor {number} of {len(self._tensors)}", done, total)
                writer.write_tensor_data(self._converted(each))
                done += self._size(each)
        finally:
            writer.close()

    # What it is

    def _whole(self, key: str, otherwise: int | None = None) -> int:
        value = self._config.get(key)
        value = otherwise if value is None else value
        if type(value) is not int or not 0 < value < 1 << 40:
            raise ModelFileError(f"its config.json has no {key} that makes sense", hint="fetch all files again")
        return value

    def _real(self, key: str, otherwise: float) -> float:
        inner = self._config.get("rope_parameters")
        value = self._config.get(key, inner.get(key) if isinstance(inner, dict) else None)
        return float(value) if isinstance(value, (int, float)) else otherwise

    def _figures(self, writer: Any, name: str) -> None:
        writer.add_type("model")
        writer.add_name(name)
        writer.add_block_count(self._whole("num_hidden_layers"))
        writer.add_context_length(self._whole("max_position_embeddings"))
        writer.add_embedding_length(self._whole("hidden_size"))
        writer.add_feed_forward_length(self._whole("intermediate_size"))
        writer.add_head_count(self._heads)
        writer.add_head_count_kv(self._kv_heads)
        writer.add_layer_norm_rms_eps(self._real("rms_norm_eps", 1e-6))
        writer.add_rope_freq_base(self._real("rope_theta", 10000.0))
        writer.add_rope_dimension_count(self._head_size)
        writer.add_key_length(self._head_size)
        writer.add_value_length(self._head_size)
        writer.add_vocab_size(self._whole("vocab_size"))
        kind = "ALL_F32" if self.to == "F32" else f"MOSTLY_{self.to}"
        writer.add_file_type(self._gguf.LlamaFileType[kind])
        writer.add_quantization_version(self._gguf.GGML_QUANT_VERSION)
        scaling = self._scaling()
        if scaling.get("rope_type", scaling.get("type")) == "linear":
            writer.add_rope_scaling_type(self._gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(scaling["factor"]))

    def _scaling(self) -> Mapping[str, Any]:
        """How rotations are stretched for longer contexts; {} for not at all."""
        for key in ("rope_scaling", "rope_parameters"):
            if isinstance(found := self._config.get(key), dict):
                return found
        return {}

    def _rope_factors(self) -> Array | None:
        """What each frequency is divided by, in the way of Llama 3.1. Source: its reference code's
        `apply_scaling`."""
        scaling = self._scaling()
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind in ("default", "linear"):
            return None
        if kind != "llama3":
            raise ModelFileError(f"its rope scaling {kind!r} is not one that Corral converts", hint=_HINT)
        try:
            factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
            old = float(scaling["original_max_position_embeddings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError("its rope scaling is incomplete", hint="fetch config.json again") from error
        base, size, factors = self._real("rope_theta", 10000.0), self._head_size, []
        for at in range(0, size, 2):
            wave = 2 * math.pi * base ** (at / size)
            if wave < old / high:
                factors.append(1.0)
            elif wave > old / low:
                factors.append(factor)
            else:
                smooth = (old / wave - low) / (high - low)
                factors.append(1 / ((1 - smooth) / factor + smooth))
        made: Array = self._np.array(factors, dtype=self._np.float32)
        return made

    def _words(self, writer: Any) -> None:
        words = self._vocabulary
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(words.split)
        writer.add_token_list(list(words.tokens))
        writer.add_token_types(list(words.kinds))
        special = self._gguf.SpecialVocab(self._model.directory, load_merges=True, n_vocab=len(words.tokens))
        special.add_to_gguf(writer, quiet=True)

    # Its weights

    def _read(self) -> Iterator[_Tensor]:
        """Every tensor under llama.cpp's name, in the order of their files."""
        blocks = self._whole("num_hidden_layers")
        architecture = next(
            key for key, name in self._gguf.MODEL_ARCH_NAMES.items() if name == self._family.architecture
        )
        names = self._gguf.get_tensor_name_map(architecture, blocks)
        tied = bool(self._config.get("tie_word_embeddings"))
        for file in self._model.files:
            with file.open("rb") as opened:
                (length,) = struct.unpack("<Q", opened.read(8))
                header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            for old, entry in sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0])):
                if old.endswith(".rotary_emb.inv_freq") or (tied and old == "lm_head.weight"):
                    continue  # computed, or there already as the embeddings
                new = names.get_name(old, try_suffixes=(".weight", ".bias"))
                if new is None or entry["dtype"] not in ("F32", "F16", "BF16"):
                    what = "a tensor that Corral does not know" if new is None else f"weights of type {entry['dtype']}"
                    raise ModelFileError(f"it has {what}: {old[:100]}", hint=_HINT)
                begin = 8 + length + int(entry["data_offsets"][0])
                shape = tuple(int(each) for each in entry["shape"])
                yield _Tensor(new, file, entry["dtype"], shape, begin, self._permuted(new))

    def _permuted(self, name: str) -> int:
        if not self._family.permuted:
            return 0
        parts = name.split(".")
        return self._heads if "attn_q" in parts else self._kv_heads if "attn_k" in parts else 0

    def _kind(self, tensor: _Tensor) -> Any:
        """The type it is written in: vectors in full, and rows that do not divide into blocks as halves."""
        kinds = self._gguf.GGMLQuantizationType
        if len(tensor.shape) < 2 or tensor.name.endswith("_norm.weight"):
            return kinds.F32
        if self.to == "Q8_0" and tensor.shape[-1] % self._gguf.GGML_QUANT_SIZES[kinds.Q8_0][0]:
            return kinds.F16
        return kinds[self.to]

    def _bytes_shape(self, tensor: _Tensor) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._gguf.quants.quant_shape_to_byte_shape(tensor.shape, self._kind(tensor))
        return shape

    def _size(self, tensor: _Tensor) -> int:
        return math.prod(self._bytes_shape(tensor))

    def _converted(self, tensor: _Tensor) -> Array:
        np = self._np
        stored = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.type]
        raw = np.memmap(tensor.file, dtype=stored, mode="r", offset=tensor.begin, shape=tensor.shape) \
            if tensor.begin % np.dtype(stored).itemsize == 0 else _read_array(np, tensor, stored)  # fmt: skip
        wide = (raw.astype(np.uint32) << 16).view(np.float32) if tensor.type == "BF16" else raw.astype(np.float32)
        if tensor.heads:
            shape = wide.shape
            split = wide.reshape(tensor.heads, 2, shape[0] // tensor.heads // 2, *shape[1:])
            wide = split.swapaxes(1, 2).reshape(shape)
        made: Array = np.ascontiguousarray(self._gguf.quants.quantize(wide, self._kind(tensor)))
        return made


def _read_array(np: Any, tensor: _Tensor, stored: str) -> Array:
    with tensor.file.open("rb") as file:
        file.seek(tensor.begin)
        data: Array = np.fromfile(file, dtype=stored, count=math.prod(tensor.shape)).reshape(tensor.shape)
    return data


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no {path.name}", hint="fetch all files of the model") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.name} is no JSON", hint="fetch it again") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path.name} is not what it should be", hint="fetch it again")
    return found
