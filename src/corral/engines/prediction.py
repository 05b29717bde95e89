"""How much memory one start of llama.cpp will take, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import flags, purpose
from corral.engines.plan import Footprint
from corral.models.footprint import estimate
from corral.models.gguf import Header
from corral.models.gguf_types import TENSOR_TYPES

_BITS: Final = {name: 8 * size / elements for name, elements, size in TENSOR_TYPES.values()}
_COMPANIONS: Final = ("--mmproj", "--lora", "--model-draft")
_UBATCH: Final = 512  # llama.cpp's default


def predict(model: ModelSettings, header: Header, context: int, gpus: Sequence[str]) -> Footprint:
    """The memory of `model` with `context` tokens per slot, shared out evenly to `gpus` as far as its layers go there.

    What `args` say about the cache's types, the batch, and further files to load (projector, adapter, draft) counts.
    """
    predicted = estimate(
        header,
        context=context * model.parallel,
        slots=model.parallel,
        kv_bits_k=_cache_bits(model, "--cache-type-k"),
        kv_bits_v=_cache_bits(model, "--cache-type-v"),
        ubatch=_ubatch(model, header, context),
    )
    total = predicted.total_bytes + sum(_size(flags.last_value(model.args, name)) for name in _COMPANIONS)
    if not gpus:
        return Footprint(MappingProxyType({"cpu": total}))
    layers = max(1, header.integer("{arch}.block_count") or 1)
    asked = layers if model.gpu_layers == "auto" else min(model.gpu_layers, layers)
    each = total * asked // layers // len(gpus)
    return Footprint(MappingProxyType({"cpu": total - each * len(gpus), **dict.fromkeys(gpus, each)}))


def _size(path: str | None) -> int:
    try:
        return 0 if path is None else Path(path).stat().st_size
    except OSError:
        return 0  # the engine will say that it is missing


def _cache_bits(model: ModelSettings, name: str) -> float:
    return _BITS.get((flags.last_value(model.args, name) or "f16").upper(), 16.0)


def _ubatch(model: ModelSettings, header: Header, context: int) -> int:
    written = flags.last_value(model.args, "--ubatch-size")
    if written is not None and written.isdecimal():
        return max(1, int(written))
    return purpose.batch(header, model.args, context) or _UBATCH
