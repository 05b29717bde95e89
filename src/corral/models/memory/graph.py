"""A graph of tensors as ggml would build it: shapes, views and order, without any data.

Source: ggml's `ggml.c` (which operation makes a view, and in which order a graph visits its sources).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Final

from corral.lazy_dataclass import dataclass

F32: Final = 4
F16: Final = 2
I32: Final = 4
I64: Final = 8

IN_PLACE: Final = frozenset({"add", "add_id", "mul", "div", "sub", "scale", "unary", "rope", "rms_norm", "clamp",
                             "soft_max", "fill"})  # fmt: skip
"""Operations that may write over their source when nothing else needs it."""

Shape = tuple[int, int, int, int]


@dataclass(eq=False, slots=True)
class Tensor:
    """One step of the graph, or a leaf. `bytes` is 0 for what has memory of its own: weights and the cache."""

    op: str  # "" for a leaf
    shape: Shape
    width: int  # bytes of an element
    strides: Shape
    sources: list[Tensor] = field(default_factory=list)
    root: Tensor | None = None  # the tensor whose memory this one is a view of
    outside: bool = False  # has memory of its own
    weight: bool = False  # and is read where it lies
    given: bool = False  # filled before the graph runs
    kept: bool = False  # read after the graph has run
    home: int = 0  # the number of the device it is computed on
    pinned: bool = False  # there and nowhere else

    @property
    def bytes(self) -> int:
        if min(self.shape) <= 0:
            return 0
        return self.width + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def _shape(sizes: Sequence[int]) -> Shape:
    first, second, third, fourth = (*sizes, 1, 1, 1, 1)[:4]
    return first, second, third, fourth


def _packed(shape: Shape, width: int) -> Shape:
    row = shape[0] * width
    return width, row, row * shape[1], row * shape[1] * shape[2]


class Graph:
    """Makes tensors, and keeps them in the order in which they will be computed."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.flash: list[tuple[Tensor, int]] = []  # fused attention, and where its keys are
        self.home = 0  # what new steps are computed on
        self._seen: set[int] = set()

    # What goes in

    def given(self, *sizes: int, width: int = F32) -> Tensor:
        """A leaf that is filled before each run."""
        shape = _shape(sizes)
        return Tensor("", shape, width, _packed(shape, width), given=True)

    def weight(self, *sizes: int, width: int = F16) -> Tensor:
        """A leaf with memory of its own on the present device."""
        shape = _shape(sizes)
        return Tensor("", shape, width, _packed(shape, width), outside=True, weight=True, home=self.home)

    def store(self, *sizes: int, width: int = F16) -> Tensor:
        """The same for what lives from run to run: keys, values, states."""
        shape = _shape(sizes)
        return Tensor("", shape, width, _packed(shape, width), outside=True, home=self.home)

    # What is computed

    def new(self, op: str, sizes: Sequence[int], *sources: Tensor | None, width: int = F32) -> Tensor:
        shape = _shape(sizes)
        found = [source for source in sources if source is not None]
        return Tensor(op, shape, width, _packed(shape, width), found, home=self.home)

    def like(self, op: str, first: Tensor, *others: Tensor | None) -> Tensor:
        """A step whose result is as large as its first source, packed."""
        return self.new(op, first.shape, first, *others, width=first.width)

    def mul_mat(self, weight: Tensor, right: Tensor) -> Tensor:
        sizes = (weight.shape[1], right.shape[1], right.shape[2], right.shape[3])
        return self.new("mul_mat", sizes, weight, right)

    def view(self, of: Tensor, sizes: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
        """Part of `of`, or all of it in another shape; `strides` from the second dimension on."""
        shape = _shape(sizes)
        packed = _packed(shape, of.width)
        if strides is None:
            full = packed
        else:
            given = (of.width, *strides)
            full = _shape((*given, *(given[-1],) * (4 - len(given))))
        root = of.root if of.root is not None else of
        return Tensor("view", shape, of.width, full, [of], root=root, home=of.home)

    def permute(self, of: Tensor, *axes: int) -> Tensor:
        """Axis i of `of` becomes axis `axes[i]`."""
        shape, strides = [1] * 4, [0] * 4
        for old, new in enumerate(axes):
            shape[new], strides[new] = of.shape[old], of.strides[old]
        root = of.root if of.root is not None else of
        return Tensor("view", _shape(shape), of.width, _shape(strides), [of], root=root, home=of.home)

    def transpose(self, of: Tensor) -> Tensor:
        return self.permute(of, 1, 0, 2, 3)

    def write(self, source: Tensor, target: Tensor, places: Tensor | None = None) -> Tensor:
        """`source` copied into `target`'s memory; the result is a view of that."""
        root = target.root if target.root is not None else target
        found = [each for each in (source, places, target) if each is not None]
        return Tensor("write", target.shape, target.width, target.strides, found, root=root, home=self.home)

    def expand(self, tensor: Tensor) -> None:
        """Adds `tensor`, and before it whatever it needs, unless it is in the graph."""
        if id(tensor) in self._seen:
            return
        self._seen.add(id(tensor))
        for source in tensor.sources:
            self.expand(source)
        (self.nodes if tensor.op else self.leaves).append(tensor)
