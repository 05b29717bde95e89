"""`Budget`: so many tokens in a day or a month, never one more, and what of that is written down. Pure.

Before a request runs, all that it may take is held. What it took is settled when it has ended. `durable` is what the
book says was spent: it is written ahead in slabs, and no request runs before everything held is covered by it. So a
server that is killed may find more spent than was, never less.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from corral.lazy_dataclass import dataclass

Span = Literal["day", "month"]

_SLABS: Final = 32  # in a budget: what a crash may lose of it is about one of them
_LEAST_SLAB: Final = 64


def period_of(span: Span, now_wall_s: float) -> str:
    """The day or month that it is, in UTC: `2026-11-21`, `2026-11`."""
    return datetime.fromtimestamp(now_wall_s, UTC).strftime("%Y-%m-%d" if span == "day" else "%Y-%m")


def ends_in_s(span: Span, now_wall_s: float) -> float:
    """Seconds until the next one begins."""
    now = datetime.fromtimestamp(now_wall_s, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if span == "day":
        end = midnight + timedelta(days=1)
    else:
        end = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (end - now).total_seconds()


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation."""

    period: str
    amount: int


class Budget:
    """One key's budget of one span; at any time that of the current period."""

    __slots__ = ("_ends_wall_s", "_slab", "durable", "held", "limit", "period", "span", "used")

    def __init__(self, span: Span, limit: int, period: str = "", spent: int = 0) -> None:
        """`spent` is what the book says of `period`."""
        self.span = span
        self.limit = limit
        self.period = period
        self.used = spent
        self.held = 0
        self.durable = spent
        self._ends_wall_s = 0.0  # until then nothing turns
        self._slab = max(_LEAST_SLAB, limit // _SLABS)

    def turn(self, now_wall_s: float) -> None:
        """Begins the period that it is now, if that is a later one."""
        if now_wall_s < self._ends_wall_s:
            return
        self._ends_wall_s = now_wall_s + ends_in_s(self.span, now_wall_s)
        period = period_of(self.span, now_wall_s)
        if period > self.period:  # a clock that was set back does not give a budget twice
            self.period, self.used, self.held, self.durable = period, 0, 0, 0

    @property
    def room(self) -> int:
        return max(0, self.limit - self.used - self.held)

    def hold(self, amount: int) -> Held:
        """Sets `amount` aside. Raises ValueError when there is no room: ask before."""
        if amount > self.room:
            raise ValueError(f"{amount} held of {self.room}")
        self.held += amount
        return Held(self.period, amount)

    def settle(self, held: Held, actual: int) -> None:
        """What was `held` came to `actual`. Of an earlier period it changes nothing any more."""
        if held.period == self.period:
            self.held -= held.amount
            self.used += actual

    @property
    def covered(self) -> bool:
        """Whether everything spent and held is written down."""
        return self.used + self.held <= self.durable

    @property
    def wants(self) -> int | None:
        """What should be written down as spent now; None while there is enough ahead."""
        taken = self.used + self.held
        if taken + self._slab // 2 <= self.durable or self.durable >= max(self.limit, taken):
            return None
        return max(taken, min(self.limit, taken + self._slab))

    def written(self, period: str, durable: int) -> None:
        """The book has it."""
        if period == self.period:
            self.durable = max(self.durable, durable)
