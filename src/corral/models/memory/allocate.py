"""How much scratch memory a graph needs on each device: ggml's graph allocator, played through with sizes only.

Source: ggml's `ggml-alloc.c` (best fit, results written over sources that nothing else needs) and, for several
devices, the copies that `ggml-backend.cpp` makes where one device reads what another has computed.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from corral.models.memory.graph import IN_PLACE, Graph, Tensor

ALIGNMENT = 32
_ENDLESS = 1 << 62


class _Arena:
    """One buffer that grows: blocks are taken where they fit best, at the end else."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int]] = [(0, _ENDLESS)]  # (offset, size), by offset
        self.peak = 0

    def take(self, size: int) -> int:
        best, best_size = len(self.free) - 1, _ENDLESS
        for number, (_, room) in enumerate(self.free[:-1]):
            if size <= room <= best_size:
                best, best_size = number, room
        offset, room = self.free[best]
        if room == size:
            del self.free[best]
        else:
            self.free[best] = (offset + size, room - size)
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        if size <= 0:
            return
        free = self.free
        for number, (start, room) in enumerate(free):
            if start + room == offset:
                room += size
                if number + 1 < len(free) and start + room == free[number + 1][0]:
                    room += free[number + 1][1]
                    del free[number + 1]
                free[number] = (start, room)
                return
            if offset + size == start:
                start, room = offset, room + size
                if number and sum(free[number - 1]) == start:
                    before = free[number - 1]
                    free[number - 1] = (before[0], before[1] + room)
                    del free[number]
                else:
                    free[number] = (start, room)
                return
        insort(free, (offset, size))


class _Use:
    """What the allocator remembers of one tensor."""

    __slots__ = ("arena", "children", "here", "offset", "views")

    def __init__(self) -> None:
        self.children = self.views = self.offset = self.arena = 0
        self.here = False


def scratch(graph: Graph, devices: int = 1, *, copies: int = 1) -> list[int]:
    """Bytes of scratch on each device, number 0 being the processor.

    `copies` above 1 is what devices that work one ahead of another have of each input.
    """
    return _Allocator(devices).run(graph, copies)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Allocator:
    def __init__(self, devices: int) -> None:
        self._arenas = [_Arena() for _ in range(devices)]
        self._uses: dict[int, _Use] = {}
        self._alive: list[Tensor] = []  # the copies: their ids must stay theirs

    def run(self, graph: Graph, copies: int) -> list[int]:
        steps = graph.nodes if len(self._arenas) == 1 else list(self._with_copies(graph, copies))
        for leaf in graph.leaves:
            leaf.kept = leaf.kept or copies > 1
            self._place(leaf)
            if leaf.given:
                self._repeat(leaf, copies)
        for step in steps:
            if step.op == "copy" and copies > 1:
                self._place(step)
                self._repeat(step, copies)
        for step in steps:
            if step.root is not None and step.op != "after":
                self._use(step.root).views += 1
            for source in step.sources:
                self._use(source).children += 1
                if source.given:
                    self._place(source)
        for step in steps:
            for source in step.sources:
                self._place(source)
            self._place(step)
            for source in step.sources:
                self._done(source)
        return [arena.peak for arena in self._arenas]

    def _repeat(self, tensor: Tensor, copies: int) -> None:
        for _ in range(copies - 1):
            self._arenas[tensor.home].take(_padded(tensor.bytes))

    def _use(self, tensor: Tensor) -> _Use:
        found = self._uses.get(id(tensor))
        if found is None:
            found = self._uses[id(tensor)] = _Use()
        return found

    def _place(self, tensor: Tensor) -> None:
        use = self._use(tensor)
        if use.here or tensor.outside or tensor.root is not None:
            return
        use.here = True
        use.arena = tensor.home
        if tensor.op in IN_PLACE and any(self._take_over(tensor, use, parent) for parent in tensor.sources):
            return
        use.offset = self._arenas[use.arena].take(_padded(tensor.bytes))

    def _take_over(self, tensor: Tensor, use: _Use, parent: Tensor) -> bool:
        """Whether `tensor` can be written over its source `parent`; if so, it is."""
        mine = self._use(parent)
        if parent.root is not None or not mine.here or parent.kept or mine.children != 1 or mine.views:
            return False
        if (tensor.width, tensor.shape, tensor.strides) != (parent.width, parent.shape, parent.strides):
            return False
        use.arena, use.offset = mine.arena, mine.offset
        mine.here = False
        return True

    def _done(self, tensor: Tensor) -> None:
        use = self._use(tensor)
        use.children -= 1
        if use.children or use.views:
            return
        if tensor.root is not None:
            owned = self._use(tensor.root)
            owned.views -= 1
            if owned.views == 0 and owned.children == 0 and owned.here:
                self._release(tensor.root, owned)
        elif use.here:
            self._release(tensor, use)

    def _release(self, tensor: Tensor, use: _Use) -> None:
        if tensor.kept or tensor.outside:
            return
        self._arenas[use.arena].give(use.offset, _padded(tensor.bytes))
        use.here = False

    def _with_copies(self, graph: Graph, copies: int) -> Iterator[Tensor]:
        """The steps, and before each change of device a copy of what the new one needs."""
        made: dict[tuple[int, int], Tensor] = {}
        numbers = iter(_runs(graph.nodes))
        for start, end, home in numbers:
            wanted: list[Tensor] = []
            for step in graph.nodes[start:end]:
                if step.op == "view":
                    continue
                for number, source in enumerate(step.sources):
                    owner = source.root or source
                    if owner.weight or owner.home == home:
                        continue
                    copy = made.get((id(source), home))
                    if copy is None:
                        copy = Tensor("copy", source.shape, source.width, source.strides, home=home, kept=copies > 1)
                        made[id(source), home] = copy
                        self._alive.append(copy)
                        wanted.append(source)
                    step.sources[number] = copy
            for source in wanted:
                after = Tensor(
                    "after", source.shape, source.width, source.strides, [source], root=source.root or source
                )
                self._alive.append(after)
                yield after
                yield made[id(source), home]
            yield from graph.nodes[start:end]


def _runs(steps: list[Tensor]) -> Iterator[tuple[int, int, int]]:
    """Where each stretch on one device starts and ends."""
    start, home = 0, None
    for number, step in enumerate(steps):
        if step.op == "view":
            continue
        if home is not None and step.home != home:
            yield start, number, home
            start = number
        home = step.home
    yield start, len(steps), home or 0
