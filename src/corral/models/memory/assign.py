"""Which device computes each step of a graph: where its weights are, else where its neighbours are computed.

Source: ggml's `ggml-backend.cpp`, passes 1 and 2 of splitting a graph, for devices that know every operation.
"""

from __future__ import annotations

from collections.abc import Iterable

from corral.models.memory.graph import Graph, Tensor

_NOWHERE = -1


def assign(graph: Graph) -> None:
    """Sets the `home` of every step; 0, the processor, only takes what no other device is next to."""
    steps = [step for step in graph.nodes if step.op != "view"]
    for step in steps:
        if not step.pinned:
            step.home = _pinned(step)
    for order in (steps, reversed(steps)):
        _spread(order, over_processor=False)
    for order in (steps, reversed(steps)):
        _spread(order, over_processor=True)


def _pinned(step: Tensor) -> int:
    if step.root is not None and step.root.outside:
        return step.root.home  # written there
    return next((each.home for each in step.sources if (each.root or each).weight), _NOWHERE)


def _spread(steps: Iterable[Tensor], *, over_processor: bool) -> None:
    now = _NOWHERE
    for step in steps:
        if step.home != _NOWHERE:
            now = step.home if step.home or over_processor else _NOWHERE
        elif now != _NOWHERE:
            step.home = now
