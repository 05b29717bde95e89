"""`Window`: how much was taken in any one minute, exactly. Pure.

Amounts are kept by the second. One counts until it is surely more than a minute old, so that no minute, wherever it
begins, ever holds more than the limit; a bucket that refills would let twice as much through at its edge.
"""

from __future__ import annotations

from corral.lazy_dataclass import dataclass

SPAN_S = 60


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken of a window, to be corrected later."""

    second: int
    amount: int


class Window:
    """`limit` in any `SPAN_S` seconds. Times are in seconds and never go back."""

    __slots__ = ("_by_second", "limit", "sum")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sum = 0
        self._by_second: dict[int, int] = {}  # oldest first

    def _forget(self, now: float) -> None:
        gone = []
        for second in self._by_second:
            if second + 1 + SPAN_S > now:
                break
            gone.append(second)
        for second in gone:
            self.sum -= self._by_second.pop(second)

    def room(self, now: float) -> int:
        """What may be taken now."""
        self._forget(now)
        return max(0, self.limit - self.sum)

    def wait_s(self, now: float, amount: int) -> float | None:
        """After how many seconds `amount` may be taken: 0 now, None never."""
        if amount > self.limit:
            return None
        lacking = amount - self.room(now)
        if lacking <= 0:
            return 0.0
        for second, taken in self._by_second.items():
            lacking -= taken
            if lacking <= 0:
                return second + 1 + SPAN_S - now
        return None

    def take(self, now: float, amount: int) -> Taken:
        """Takes it, whether there is room or not: ask before."""
        second = int(now)
        self._by_second[second] = self._by_second.get(second, 0) + amount
        self.sum += amount
        return Taken(second, amount)

    def correct(self, taken: Taken, actual: int) -> None:
        """What was `taken` came to `actual`. It counts from when it was taken."""
        if taken.second in self._by_second:
            self._by_second[taken.second] += actual - taken.amount
            self.sum += actual - taken.amount
