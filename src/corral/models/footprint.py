"""How much memory a model will take, from its header alone, on all devices together.

`corral.models.memory` does the counting, device by device; this is the short way to ask.
"""

from __future__ import annotations

from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header
from corral.models.memory.predict import predict
from corral.models.memory.run import Run
from corral.models.memory.shape import layers as layers


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted memory in bytes."""

    weights_bytes: int
    kv_bytes: int  # the KV cache of all slots, recurrent state included
    compute_bytes: int  # scratch of the graph, and the output logits

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


def estimate(
    header: Header, *, context: int, slots: int, type_k: str = "F16", type_v: str = "F16", ubatch: int = 512
) -> Estimate:
    """The memory of one engine that serves `header`'s model on the processor.

    `context` is the total of all slots in tokens, as llama.cpp's `--ctx-size` is. `type_*` name ggml's types.
    """
    run = Run(context=context, slots=slots, type_k=type_k, type_v=type_v, ubatch=ubatch)
    found = predict(header, run)
    return Estimate(found.weights, found.cache, found.compute)


def slot_cells(context: int, slots: int) -> int:
    """The tokens one slot can hold when `context` is shared by `slots`."""
    return Run(context=context, slots=slots).cells
