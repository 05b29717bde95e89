"""The bytes of keys, values and recurrent state that each layer keeps between tokens.

Source: llama.cpp's `llama-kv-cache*.cpp` and `llama-memory-recurrent.cpp`.
"""

from __future__ import annotations

import math

from corral.models.memory.run import CACHE_BITS, Run
from corral.models.memory.shape import Layer, Layout


def cache_bytes(layout: Layout, run: Run) -> list[int]:
    """By layer, all slots together."""
    if not layout.caches:
        return [0] * len(layout.layers)
    widest = max((layer.kv_heads * layer.value for layer in layout.layers if layer.attends), default=0)
    return [_attention(layout, run, layer, widest) + _state(layout, run, layer) for layer in layout.layers]


def _attention(layout: Layout, run: Run, layer: Layer, widest: int) -> int:
    if not layer.attends:
        return 0
    cells = run.window_cells(layer.window) if layer.window else run.cells
    keys = layer.kv_heads * layer.key
    # Without flash attention the values lie crosswise, and all layers have the widest one's room.
    values = 0 if layout.mla else layer.kv_heads * layer.value if run.flash else widest
    bits = keys * CACHE_BITS.get(run.type_k, 16.0) + values * CACHE_BITS.get(run.type_v, 16.0)
    return math.ceil(cells * run.streams * bits / 8)


def _state(layout: Layout, run: Run, layer: Layer) -> int:
    if not layer.recurrent or layer.number >= len(layout.layers) - layout.extra:
        return 0
    return 4 * sum(layout.state_floats) * run.slots  # F32, whatever the cache's types
