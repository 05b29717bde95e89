"""`Account`: all limits of one key together, taken at once or not at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from corral.access.budget import Budget, Held, Span, ends_in_s, period_of
from corral.access.keys import Limits
from corral.access.rates import Taken, Window
from corral.access.sizes import Size
from corral.lazy_dataclass import dataclass

MOST_UNSAID = 8192
"""Tokens of an answer for which the request itself sets no bound, where tokens are counted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Which limit is reached, in words, and after how many seconds it makes sense to try again (None: not known)."""

    text: str
    limit: str  # the option that sets it, such as tokens-per-day
    retry_after_s: float | None
    hint: str = "wait, or ask whoever gave you the key for more"


@dataclass(slots=True)
class Admission:
    """What one request was given."""

    tokens: int  # reserved; 0 where none are counted
    prompt: int  # of that, for its prompt
    each: int | None  # tokens that each answer may have, where the engine is to be told
    answers: int = 1  # that it asks for
    minute: Taken | None = None
    held: list[tuple[Budget, Held]] = field(default_factory=list)


class Account:
    """What one key has taken and may take. `spent` is what the book says, by period."""

    __slots__ = ("_budgets", "_limits", "_requests", "_tokens", "streams")

    def __init__(self, limits: Limits, spent: Mapping[str, int], now_wall_s: float) -> None:
        self._limits = limits
        self.streams = 0
        self._requests = None if limits.requests_per_minute is None else Window(limits.requests_per_minute)
        self._tokens = None if limits.tokens_per_minute is None else Window(limits.tokens_per_minute)
        self._budgets = [
            Budget(span, limit, period, spent.get(period, 0))
            for span, limit in _spans(limits)
            for period in [period_of(span, now_wall_s)]
        ]

    @property
    def budgets(self) -> list[Budget]:
        return self._budgets

    @property
    def covered(self) -> bool:
        """Whether every budget's state is written down, see `Budget`."""
        return all(budget.covered for budget in self._budgets)

    def admit(self, size: Size, now: float, now_wall_s: float) -> Admission | Refused:
        """Takes what a request of `size` may need from every limit, or nothing from any."""
        limits = self._limits
        if limits.streams is not None and self.streams >= limits.streams:
            return Refused(f"this key has {self.streams} requests running, and may have {limits.streams}", "streams", 1)
        if self._requests is not None and (wait_s := self._requests.wait_s(now, 1)) != 0.0:
            text = f"this key has sent its {limits.requests_per_minute} requests of this minute"
            return Refused(text, "requests-per-minute", wait_s)
        admission = Admission(0, 0, None)
        if limits.counts_tokens and size.counts:
            found = self._tokens_for(size, now, now_wall_s)
            if isinstance(found, Refused):
                return found
            admission = found
        if self._requests is not None:
            self._requests.take(now, 1)
        if self._tokens is not None and admission.tokens:
            admission.minute = self._tokens.take(now, admission.tokens)
        if admission.tokens:
            admission.held = [(budget, budget.hold(admission.tokens)) for budget in self._budgets]
        self.streams += 1
        return admission

    def _tokens_for(self, size: Size, now: float, now_wall_s: float) -> Admission | Refused:
        for budget in self._budgets:
            budget.turn(now_wall_s)
        least = size.least
        if self._tokens is not None and (wait_s := self._tokens.wait_s(now, least)) != 0.0:
            if wait_s is None:
                return Refused(
                    f"the request may take {least} tokens, and this key has {self._tokens.limit} a minute",
                    "tokens-per-minute", None, "send less at a time, or set a lower max_tokens",
                )  # fmt: skip
            return Refused("this key has taken its tokens of this minute", "tokens-per-minute", wait_s)
        for budget in self._budgets:
            if least > budget.room:
                hint = "set a lower max_tokens, or wait" if budget.room else "wait, or ask for a larger budget"
                return Refused(
                    f"{budget.room} of this key's {budget.limit} tokens a {budget.span} are left, and the request may "
                    f"take {least}", f"tokens-per-{budget.span}", ends_in_s(budget.span, now_wall_s), hint,
                )  # fmt: skip
        if size.each is not None:
            return Admission(least, size.prompt, size.each if size.told else None, size.answers)
        rooms = [budget.room for budget in self._budgets]
        if self._tokens is not None:
            rooms.append(self._tokens.room(now))
        each = min(MOST_UNSAID, size.most_each or MOST_UNSAID, (min(rooms) - size.prompt) // size.answers)
        return Admission(size.prompt + each * size.answers, size.prompt, each, size.answers)

    def settle(self, admission: Admission, tokens: int, answers: int = 1) -> None:
        """The request has ended and took `tokens`, as its engine says of so many of its answers."""
        if tokens and admission.answers > answers:
            # llama.cpp may count one of several answers. What was set aside is too much, but never too little.
            tokens = max(tokens, admission.tokens)
        self.streams -= 1
        if self._tokens is not None and admission.minute is not None:
            self._tokens.correct(admission.minute, tokens)
        for budget, held in admission.held:
            budget.settle(held, tokens)


def _spans(limits: Limits) -> Iterator[tuple[Span, int]]:
    if limits.tokens_per_day is not None:
        yield "day", limits.tokens_per_day
    if limits.tokens_per_month is not None:
        yield "month", limits.tokens_per_month
