"""`predict`: the bytes that one run of a model takes on each device: weights, cache and scratch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header
from corral.models.memory.allocate import scratch
from corral.models.memory.cache import cache_bytes
from corral.models.memory.graph import Graph
from corral.models.memory.run import Run
from corral.models.memory.shape import Layout, read_layout
from corral.models.memory.whole import build

PROCESSOR: Final = "cpu"
COPIES: Final = 4  # ggml's GGML_SCHED_MAX_COPIES


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes on one device."""

    weights: int = 0
    cache: int = 0  # keys and values of all slots, and recurrent state
    compute: int = 0  # scratch of the graph; on the processor also the logits that are handed out

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute

    def __add__(self, other: Parts) -> Parts:
        return Parts(self.weights + other.weights, self.cache + other.cache, self.compute + other.compute)


@dataclass(frozen=True, slots=True)
class Prediction:
    """By device: `"cpu"`, then those of the run."""

    devices: Mapping[str, Parts]

    @property
    def weights(self) -> int:
        return sum(parts.weights for parts in self.devices.values())

    @property
    def cache(self) -> int:
        return sum(parts.cache for parts in self.devices.values())

    @property
    def compute(self) -> int:
        return sum(parts.compute for parts in self.devices.values())

    @property
    def total(self) -> int:
        return sum(parts.total for parts in self.devices.values())

    def __add__(self, other: Prediction) -> Prediction:
        names = dict.fromkeys((*self.devices, *other.devices))
        none = Parts()
        return Prediction(MappingProxyType({n: self.devices.get(n, none) + other.devices.get(n, none) for n in names}))


def predict(header: Header, run: Run) -> Prediction:
    """What `run` of the model takes. Pure; takes milliseconds. Whatever the file claims, something comes out."""
    layout = read_layout(header)
    homes = _homes(layout, run)
    names = (PROCESSOR, *run.gpus)
    run, graph = _graph(layout, run, homes)
    weights = _weights(layout, run, homes, len(names))
    cached = [0] * len(names)
    for number, size in enumerate(cache_bytes(layout, run)):
        cached[homes[number] if run.cache_on_gpus else 0] += size
    # Several devices that hold everything between them work one ahead of another, on copies of each input.
    ahead = len(run.gpus) > 1 and 0 not in homes and run.cache_on_gpus
    compute = scratch(graph, len(names), copies=COPIES if ahead else 1)
    compute[0] += _handed_out(layout, run)
    found = (Parts(*each) for each in zip(weights, cached, compute, strict=True))
    return Prediction(MappingProxyType(dict(zip(names, found, strict=True))))


def _graph(layout: Layout, run: Run, homes: list[int]) -> tuple[Run, Graph]:
    """The graph, and the run with the question of flash attention settled.

    Left to itself, llama.cpp does without it as soon as one layer's attention is not computed where its keys are,
    which happens to hybrids that are partly on a GPU.
    """
    first = run if run.flash is not None else replace(run, flash=True)
    graph = build(layout, first, homes)
    if run.flash is None and any(step.home != home for step, home in graph.flash):
        first = replace(run, flash=False)
        graph = build(layout, first, homes)
    return first, graph


def _homes(layout: Layout, run: Run) -> list[int]:
    """The device of each block, and of the output: 0 is the processor, n the n-th GPU."""
    count = len(layout.layers)
    asked = count + 1 if run.layers_on_gpus is None else min(max(0, run.layers_on_gpus), count + 1)
    if not run.gpus or not asked:
        return [0] * (count + 1)
    given = run.split if len(run.split) >= len(run.gpus) and sum(run.split[: len(run.gpus)]) > 0 else ()
    shares = [max(0.0, share) for share in given[: len(run.gpus)]] or [1.0] * len(run.gpus)
    total = sum(shares)
    ends = list(accumulate(share / total for share in shares))
    first = count + 1 - asked
    return [
        0 if number < first else min(len(run.gpus), 1 + bisect_right(ends, (number - first) / asked))
        for number in range(count + 1)
    ]


def _weights(layout: Layout, run: Run, homes: list[int], devices: int) -> list[int]:
    """Every tensor where its layer is; embeddings stay on the processor, and an output made of them is a copy."""
    found = [0] * devices
    used = len(layout.layers) - layout.extra
    for tensor in layout.header.tensors:
        block = _block(tensor.name)
        if block is not None and used <= block < len(layout.layers):
            continue  # for speculative decoding; not loaded
        found[_home(tensor.name, homes)] += tensor.bytes
    table = layout.tensors.get("token_embd.weight")
    if table is not None and "output.weight" not in layout.tensors and homes[-1] and layout.caches:
        found[homes[-1]] += table.bytes
    for adapter in run.adapters:
        for tensor in adapter.tensors:
            found[_home(tensor.name, homes)] += tensor.bytes
    return found


def _home(name: str, homes: list[int]) -> int:
    block = _block(name)
    if block is not None:
        return homes[min(block, len(homes) - 1)]
    return homes[-1] if name.startswith(("output", "cls")) else 0


def _block(name: str) -> int | None:
    if not name.startswith("blk."):
        return None
    number = name.split(".", 2)[1]
    return int(number) if number.isdecimal() else None


def _handed_out(layout: Layout, run: Run) -> int:
    """The buffer from which logits and embeddings are read."""
    floats = layout.vocabulary + (layout.width if run.embedding else 0)
    return 4 * floats * run.slots
