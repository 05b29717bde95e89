"""What the last minutes were like: first tokens, fills of contexts, tokens and requests per second. Pure.

Times are handed in, on `clock.monotonic`. A unit goes by its own name here, whichever process serves under it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

FIRST_TOKENS_S: Final = 300.0
"""How far back first tokens count."""
FILLS_S: Final = 60.0
"""How far back conversations count for how full a unit's contexts are."""
SECONDS: Final = 60
"""Of which rates are kept."""
RATE_S: Final = 10
"""Over so many of them a rate is taken."""
_MOST: Final = 2000
"""First tokens kept of a unit: of more, the newest."""


class Latest:
    """Values with the times at which they came, as far back as they count. Kept as plain numbers: there is one of these
    for each unit, and thousands of small objects in each."""

    __slots__ = ("_times", "_values", "_within_s")

    def __init__(self, within_s: float) -> None:
        self._times, self._values = array("d"), array("d")
        self._within_s = within_s

    def add(self, at: float, value: float) -> None:
        self._times.append(at)
        self._values.append(value)
        if len(self._times) >= 2 * _MOST:
            self._forget(_MOST)

    def values(self, now: float) -> list[float]:
        """Those that count `now`."""
        gone = next((i for i, at in enumerate(self._times) if at >= now - self._within_s), len(self._times))
        self._forget(max(gone, len(self._times) - _MOST))
        return self._values.tolist()

    def _forget(self, count: int) -> None:
        del self._times[:count], self._values[:count]


def quantiles(values: Iterable[float], *shares: float) -> tuple[float | None, ...]:
    """The nearest of `values` below which so large a share of them is; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return (None,) * len(shares)
    return tuple(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares)


class Rate:
    """How much came in each of the last seconds."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=SECONDS)

    def add(self, per_s: float) -> None:
        """One more second is over."""
        self._seconds.append(per_s)

    @property
    def history(self) -> list[float]:
        """Of each of the last seconds, oldest first; as many as were seen."""
        return list(self._seconds)

    @property
    def now(self) -> float:
        """The mean of the last few."""
        last = list(self._seconds)[-RATE_S:]
        return sum(last) / len(last) if last else 0.0

    @property
    def is_silent(self) -> bool:
        return not any(self._seconds)


class Recent:
    """Of one unit, or of all of them together."""

    __slots__ = ("errors", "fills", "first_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.first_tokens = Latest(FIRST_TOKENS_S)
        self.fills = Latest(FILLS_S)  # tokens that a conversation came to
        self.tokens = Rate()
        self.requests = self.errors = 0  # since the server started

    def first_token_s(self, now: float) -> tuple[float | None, float | None]:
        """The median and the 95th percentile."""
        median, high = quantiles(self.first_tokens.values(now), 0.5, 0.95)
        return median, high

    def fill(self, now: float) -> int | None:
        """Tokens of the longest conversation."""
        values = self.fills.values(now)
        return int(max(values)) if values else None


class Written:
    """From counts of pieces that only grow, by process, to what each unit wrote since the last time."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def since(self, counts: Mapping[str, int]) -> dict[str, int]:
        """By unit. `counts` are by process, `<unit>.<generation>`; one that is new began with none."""
        found: dict[str, int] = {}
        for process, count in counts.items():
            unit = process.rpartition(".")[0] or process
            found[unit] = found.get(unit, 0) + max(0, count - self._before.get(process, 0))
        self._before = dict(counts)
        return found
