"""`Line`: those who wait for one model. Keys take turns, and within one key the oldest comes first. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import field

from corral.lazy_dataclass import dataclass


@dataclass(slots=True)
class Line:
    """Waiters by id. `queues` is a ring: its first key has the next turn, and goes to the end with it."""

    queues: dict[str, deque[int]] = field(default_factory=dict)
    watchers: list[int] = field(default_factory=list)  # they want a unit ready, and hold nothing

    def __len__(self) -> int:
        return len(self.watchers) + sum(map(len, self.queues.values()))

    def __bool__(self) -> bool:
        return bool(self.queues or self.watchers)

    def __iter__(self) -> Iterator[int]:
        yield from self.watchers
        for queue in self.queues.values():
            yield from queue

    @property
    def heads(self) -> Iterator[int]:
        """The oldest of each key, and the watchers."""
        yield from self.watchers
        for queue in self.queues.values():
            yield queue[0]

    def add(self, waiter: int, key: str) -> None:
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = deque()
        queue.append(waiter)

    def remove(self, waiter: int, key: str) -> None:
        queue = self.queues[key]
        queue.remove(waiter)
        if not queue:
            del self.queues[key]

    def next(self, may: Callable[[int], bool]) -> int | None:
        """Whose turn it is among those that `may`; its key goes to the end of the ring."""
        for key, queue in self.queues.items():
            if may(queue[0]):
                self.queues[key] = self.queues.pop(key)
                return queue[0]
        return None

    def place_of(self, waiter: int, key: str) -> int:
        """Which turn from now is that of `waiter`: 1 is the next."""
        ahead = index = self.queues[key].index(waiter)
        passed = False
        for other, queue in self.queues.items():
            if other == key:
                passed = True
            else:
                ahead += min(len(queue), index if passed else index + 1)
        return ahead + 1
