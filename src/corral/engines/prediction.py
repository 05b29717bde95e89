"""How much memory one start of llama.cpp will take, and where."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import flags, purpose
from corral.engines.plan import Footprint
from corral.models.footprint import estimate
from corral.models.gguf import Header
from corral.models.gguf_types import TENSOR_TYPES

_BITS: Final = {name: 8 * size / elements for name, elements, size in TENSOR_TYPES.values()}
_UBATCH = 512  # llama.cpp's default


def predict(model: ModelSettings, header: Header, context: int, gpus: Sequence[str]) -> Footprint:
    """The memory of `model` with `context` tokens per slot, shared out evenly to `gpus` as far as its layers go there.

    What `args` say about the cache's types and the batch counts.
    """
    predicted = estimate(
        header,
        context=context * model.parallel,
        slots=model.parallel,
        kv_bits_k=_cache_bits(model, "--cache-type-k"),
        kv_bits_v=_cache_bits(model, "--cache-type-v"),
        ubatch=_ubatch(model, header, context),
    )
    if not gpus:
        return Footprint(MappingProxyType({"cpu": predicted.total_bytes}))
    layers = max(1, header.integer("{arch}.block_count") or 1)
    asked = layers if model.gpu_layers == "auto" else min(model.gpu_layers, layers)
    each = predicted.total_bytes * asked // layers // len(gpus)
    return Footprint(MappingProxyType({"cpu": predicted.total_bytes - each * len(gpus), **dict.fromkeys(gpus, each)}))


def _cache_bits(model: ModelSettings, name: str) -> float:
    return _BITS.get((flags.last_value(model.args, name) or "f16").upper(), 16.0)


def _ubatch(model: ModelSettings, header: Header, context: int) -> int:
    written = flags.last_value(model.args, "--ubatch-size")
    if written is not None and written.isdecimal():
        return max(1, int(written))
    return purpose.batch(header, model.args, context) or _UBATCH
