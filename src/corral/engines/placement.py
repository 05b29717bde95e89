"""`Room` and `Step`: what a plan may use of each device, and how far down it is already. Plain data, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Final

from corral.config.settings import Rung
from corral.lazy_dataclass import dataclass

RUNGS: Final[tuple[Rung, ...]] = ("batch", "context", "layers", "cpu")
"""What can be made smaller when memory was not enough, in the order in which it is where nothing else is configured."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that one model may use of each device, all others gone: `"cpu"`, then GPUs in its engine's order.

    It does not depend on what is free at the moment, so that the same start is planned again tomorrow. Empty: nothing
    is known, and the layout is left to the engine.
    """

    bytes_by_device: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    engine_names: tuple[str, ...] = ()  # what the engine calls the GPUs: "CUDA0" …
    shared: tuple[str, ...] = ()  # GPUs whose memory is the machine's own, so that `"cpu"` counts it too
    known: str = ""  # how it came about, in words
    totals: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # of GPUs, where it matters

    @property
    def gpus(self) -> tuple[str, ...]:
        return tuple(name for name in self.bytes_by_device if name != "cpu")

    def __bool__(self) -> bool:
        return bool(self.bytes_by_device)


UNKNOWN: Final = Room()


@dataclass(frozen=True, slots=True)
class Step:
    """How far below the best plan a start is, after memory or a GPU failed: rungs taken of each kind."""

    batch: int = 0
    context: int = 0
    layers: int = 0
    cpu: str = ""  # why it must do without GPUs; "" = it need not
    gpu_lost: bool = False  # that is since a GPU failed, and may be over when it is back

    def __bool__(self) -> bool:
        return self != TOP

    def down(self, rung: Rung, why: str) -> Step:
        """One rung further."""
        if rung == "cpu":
            return replace(self, cpu=why)
        return replace(self, **{rung: getattr(self, rung) + 1})

    def without_gpus(self, why: str) -> Step:
        """The same after a GPU failed."""
        return replace(self, cpu=why, gpu_lost=True)


TOP: Final = Step()


def next_step(step: Step, left: Sequence[Rung], order: Sequence[Rung] | None, why: str) -> tuple[Step, Rung] | None:
    """The step after `step` when memory was not enough, and what it makes smaller; None after the last.

    `left` says which rungs the plan that failed still had below it, `order` which are allowed, the first one first.
    """
    for rung in RUNGS if order is None else order:
        if rung in left:
            return step.down(rung, why), rung
    return None
