"""How much memory a model will take, from its header alone.

Source: llama.cpp's `llama-context.cpp`, `llama-kv-cache.cpp` and the buffer sizes that a build of late 2026 logs; the
compute formula is fitted to those for llama-like graphs with flash attention, and errs upwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from corral.models.gguf import Header

CELLS_STEP: Final = 256  # llama.cpp rounds each slot's context up to a multiple of this
_MASK_BYTES: Final = 2  # per cell and token of a batch: the attention mask in F16
_INPUT_FLOATS: Final = 16  # per token of a batch: its id, position, place in the cache and the like


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted memory in bytes, on all devices together."""

    weights_bytes: int
    kv_bytes: int  # the KV cache of all slots, recurrent state included
    compute_bytes: int  # scratch of the graph, and the output logits

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


def estimate(
    header: Header,
    *,
    context: int,
    slots: int,
    kv_bits_k: float = 16,
    kv_bits_v: float = 16,
    ubatch: int = 512,
) -> Estimate:
    """The memory of one engine that serves `header`'s model.

    `context` is the total of all slots in tokens, as llama.cpp's `--ctx-size` is: each slot gets its share, rounded up
    to `CELLS_STEP`. `kv_bits_*` are bits per cached element, scales included (Q8_0: 8.5). `ubatch` is the number of
    tokens computed at once. For an architecture that caches less than plain attention does, this is an upper bound.
    """
    cells = slot_cells(context, slots)
    return Estimate(
        weights_bytes=header.weights_bytes,
        kv_bytes=_kv_bytes(header, cells * slots, kv_bits_k, kv_bits_v) + _state_bytes(header, slots),
        compute_bytes=_compute_bytes(header, cells, slots, min(ubatch, cells * slots)),
    )


def slot_cells(context: int, slots: int) -> int:
    """The tokens one slot can hold when `context` is shared by `slots`."""
    return max(1, math.ceil(_rounded(context) // slots / CELLS_STEP)) * CELLS_STEP


def _rounded(context: int) -> int:
    return math.ceil(context / CELLS_STEP) * CELLS_STEP


def _kv_bytes(header: Header, cells: int, bits_k: float, bits_v: float) -> int:
    if header.get("{arch}.attention.causal") is False:
        return 0  # an encoder looks at its whole input at once and caches nothing
    key, value = _head_widths(header)
    bits = sum(heads * (key * bits_k + value * bits_v) for heads in _kv_heads(header))
    return math.ceil(cells * bits / 8)


def _state_bytes(header: Header, slots: int) -> int:
    """Recurrent state (Mamba and its like): F32, per slot and layer, whatever the context."""
    inner, state = _size(header, "{arch}.ssm.inner_size"), _size(header, "{arch}.ssm.state_size")
    kernel = _size(header, "{arch}.ssm.conv_kernel")
    groups = _size(header, "{arch}.ssm.group_count")
    floats = inner * state + max(0, kernel - 1) * (inner + 2 * groups * state)
    return 4 * floats * slots * layers(header)


def _compute_bytes(header: Header, cells: int, slots: int, tokens: int) -> int:
    width = _size(header, "{arch}.embedding_length")
    key, value = _head_widths(header)
    kv_width = max(_kv_heads(header), default=0) * max(key, value)
    heads = max(_per_layer(header, "{arch}.attention.head_count"), default=0)
    attention = 4 * width + heads * key + 2 * kv_width
    feed_forward = 3 * _widest_ff(header) + 5 * width  # 3 to 5, as the allocator finds room
    per_token = 4 * (max(attention, feed_forward) + _INPUT_FLOATS) + _MASK_BYTES * cells
    logits = 4 * (header.vocabulary or 0) * slots
    return tokens * per_token + logits


def _widest_ff(header: Header) -> int:
    """The widest feed-forward layer a token passes: dense, or its experts together."""
    dense = max(_per_layer(header, "{arch}.feed_forward_length"), default=0)
    expert = _size(header, "{arch}.expert_feed_forward_length") or dense
    experts = _size(header, "{arch}.expert_used_count") * expert
    return max(dense, experts + _size(header, "{arch}.expert_shared_feed_forward_length"))


def _head_widths(header: Header) -> tuple[int, int]:
    heads = max(_per_layer(header, "{arch}.attention.head_count"), default=0)
    usual = _size(header, "{arch}.embedding_length") // heads if heads else 0
    key = _size(header, "{arch}.attention.key_length") or usual
    value = _size(header, "{arch}.attention.value_length") or usual
    return key, value


def _kv_heads(header: Header) -> tuple[int, ...]:
    """KV heads by layer; as many as query heads where the file does not say."""
    key = "{arch}.attention.head_count_kv"
    return _per_layer(header, key if header.get(key) is not None else "{arch}.attention.head_count")


def layers(header: Header) -> int:
    """The number of blocks, counted from the tensors where the file does not say."""
    stated = _size(header, "{arch}.block_count")
    if stated:
        return stated
    numbers = {name.split(".")[1] for tensor in header.tensors if (name := tensor.name).startswith("blk.")}
    return len(numbers)


def _per_layer(header: Header, key: str) -> tuple[int, ...]:
    """A figure that is given once, or once for each layer."""
    value = header.get(key)
    if isinstance(value, tuple):
        return tuple(max(0, int(item)) for item in value if isinstance(item, int))
    return (_size(header, key),) * min(layers(header), 1 << 16)


def _size(header: Header, key: str) -> int:
    return max(0, header.integer(key) or 0)
