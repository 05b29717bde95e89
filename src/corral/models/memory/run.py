"""`Run`: the settings of one engine that decide how much memory it takes."""

from __future__ import annotations

import math
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header
from corral.models.formats.gguf_types import TENSOR_TYPES

CELLS_STEP: Final = 256
"""llama.cpp rounds contexts up to a multiple of this."""

CACHE_BITS: Final = {name: 8 * size / elements for name, elements, size in TENSOR_TYPES.values()}
"""Bits of one cached element by the type's name, scales included (Q8_0: 8.5)."""

PLAIN: Final = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


@dataclass(frozen=True, slots=True)
class Run:
    """How one model is served. The defaults are llama.cpp's.

    `layers_on_gpus` counts from the model's end, the output counting as one more: `block_count + 1` is everything.
    `split` is each GPU's share of those, by device in order; nothing for even shares.
    """

    context: int  # tokens, of all slots together, as `--ctx-size`
    slots: int = 1
    unified: bool = False  # one cache that all slots share
    batch: int = 2048
    ubatch: int = 512
    type_k: str = "F16"
    type_v: str = "F16"
    flash: bool | None = None  # flash attention; None: where the engine can
    swa_full: bool = False
    embedding: bool = False
    pooling: str = ""  # "" as the file says; "none", "mean", "cls", "last", "rank"
    gpus: tuple[str, ...] = ()
    layers_on_gpus: int | None = None  # None: all
    split: tuple[float, ...] = ()
    cache_on_gpus: bool = True
    outputs: int | None = None  # tokens at once whose logits are wanted; None: one for each slot
    adapters: tuple[Header, ...] = ()  # LoRA files

    @property
    def streams(self) -> int:
        """Caches that are apart from one another."""
        return 1 if self.unified else self.slots

    @property
    def cells(self) -> int:
        """Tokens that one stream holds."""
        whole = _rounded(self.context)
        return whole if self.unified else max(CELLS_STEP, _rounded(whole // self.slots))

    @property
    def total_cells(self) -> int:
        return self.cells * self.streams

    def window_cells(self, window: int) -> int:
        """Tokens that one stream holds of a layer that looks back no further than `window`."""
        if self.swa_full:
            return self.cells
        return _rounded(min(self.cells, window * (self.slots if self.unified else 1) + self.step()))

    def step(self, *, causal: bool = True) -> int:
        """The most tokens computed at once, before rounding to whole slots."""
        longest = self.context if causal else self.total_cells  # who reads all at once must have room for all
        return max(1, min(self.ubatch, self.batch, longest))

    def tokens(self, *, causal: bool = True) -> int:
        """As many tokens as the largest graph is made for: the same number for each slot."""
        return math.ceil(self.step(causal=causal) / self.slots) * self.slots


def _rounded(tokens: int) -> int:
    return math.ceil(max(1, tokens) / CELLS_STEP) * CELLS_STEP
