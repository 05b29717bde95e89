"""Who fetches which part of a file: runs of missing chunks, handed out from the front. Pure.

The front goes first, so that the hash can follow; spans get shorter towards the end, so that all connections end at
about the same time; and one that has nothing left to do takes half of what the slowest has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.lazy_dataclass import dataclass

MOST_CHUNKS = 4


@dataclass(slots=True, eq=False)
class Span:
    """A part of the file that one worker fetches: what is left of it starts at `position`. `stop` may come nearer."""

    position: int
    stop: int

    @property
    def left(self) -> int:
        return self.stop - self.position


class Spans:
    """The plan for one file. Not safe between threads: its owner holds a lock."""

    def __init__(self, size: int, chunk_bytes: int, states: Sequence[int]) -> None:
        self.size = size
        self.chunk_bytes = chunk_bytes
        self._have = [bool(state) for state in states]
        self._next = 0  # every chunk before it is here or handed out
        self._missing = self._have.count(False)  # neither here nor handed out
        self._returned: list[Span] = []
        self.running: list[Span] = []
        self._front = 0
        self._advance()

    def take(self, workers: int) -> Span | None:
        """The next part for one of `workers`; None when there is nothing left to share out."""
        if self._returned:
            span: Span | None = min(self._returned, key=lambda each: each.position)
            self._returned = [each for each in self._returned if each is not span]
        else:
            span = self._fresh(workers) or self._half()
        if span is not None:
            self.running.append(span)
        return span

    def more_to_take(self) -> bool:
        """Whether `take` would give something; it looks only."""
        return bool(self._returned or self._missing) or self._cut() is not None

    def give_back(self, span: Span) -> None:
        """Ends a worker's `span`, finished or not. What is left of it is handed out again, from where it got to."""
        self.running.remove(span)
        if span.left > 0:
            self._returned.append(span)

    def advance(self, span: Span, count: int, finished: Callable[[int], None]) -> None:
        """Says that `count` more bytes of `span` are written; calls `finished(chunk)` for each that became whole."""
        before, span.position = span.position, span.position + count
        for index in range(before // self.chunk_bytes, self._chunk_after(span.position)):
            if not self._have[index]:
                self._have[index] = True
                finished(index)
        self._advance()

    @property
    def done(self) -> bool:
        return self._front == len(self._have)

    @property
    def frontier(self) -> int:
        """Every byte before it is written."""
        if self.done:
            return self.size
        start = self._front * self.chunk_bytes
        for span in (*self.running, *self._returned):
            if start <= span.position < start + self.chunk_bytes:
                return max(start, span.position)
        return start

    @property
    def have_bytes(self) -> int:
        """Bytes written, those of unfinished chunks included."""
        return self.size - self.left_bytes

    @property
    def left_bytes(self) -> int:
        left = self._missing * self.chunk_bytes + sum(span.left for span in (*self.running, *self._returned))
        if self._missing and not self._have[-1] and self._next < len(self._have):
            left -= len(self._have) * self.chunk_bytes - self.size  # the last chunk is shorter
        return left

    def _chunk_after(self, position: int) -> int:
        """One more than the last chunk that ends at or before `position`."""
        return len(self._have) if position >= self.size else position // self.chunk_bytes

    def _advance(self) -> None:
        while self._front < len(self._have) and self._have[self._front]:
            self._front += 1

    def _fresh(self, workers: int) -> Span | None:
        while self._next < len(self._have) and self._have[self._next]:
            self._next += 1
        if self._next == len(self._have):
            return None
        most = max(1, min(MOST_CHUNKS, self._missing // (2 * workers)))
        first = self._next
        while self._next < len(self._have) and self._next - first < most and not self._have[self._next]:
            self._next += 1
        self._missing -= self._next - first
        return Span(first * self.chunk_bytes, min(self.size, self._next * self.chunk_bytes))

    def _cut(self) -> tuple[Span, int] | None:
        """The longest running span and where to halve it, when it is long enough to be worth a new request."""
        longest = max(self.running, key=lambda each: each.left, default=None)
        if longest is None or longest.left < 2 * self.chunk_bytes:
            return None
        middle = longest.position + longest.left // 2
        at = -(-middle // self.chunk_bytes) * self.chunk_bytes
        return (longest, at) if longest.position < at < longest.stop else None

    def _half(self) -> Span | None:
        if (found := self._cut()) is None:
            return None
        longest, at = found
        span = Span(at, longest.stop)
        longest.stop = at
        return span
