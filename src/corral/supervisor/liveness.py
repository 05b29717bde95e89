"""Whether an engine lives or hangs, judged from what was seen of it. Pure: every time is given.

Two bounds are stated, both made of the `hang` timeout:

- *silence*: its HTTP side answers a small question within `hang`, computing or not;
- *standstill*: with requests running, a token, a piece of a prompt or a byte comes within `hang` plus three times what
  its prompts take at the rate that was measured, plus ten tokens' time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import StrEnum

from corral.lazy_dataclass import dataclass
from corral.units import show_duration

UNKNOWN_PER_S = 2.0
"""Prompt tokens per second as long as none were measured: a large model on a small processor."""
BYTES_PER_TOKEN = 3.0
"""English has more; other scripts may have fewer, which answers tell. Too many tokens only make it more patient."""
PATIENCE = 3.0
"""A prompt may take so many times what it should: others are read at the same time."""
TOKENS_AT_ONCE = 10
"""Some answers come several tokens at a time, so that nothing wrong is sent."""

_LOOKS_PER_BOUND = 8
_MOST_BETWEEN_S = 5.0


class Verdict(StrEnum):
    LIVES = "lives"
    ASK = "ask"  # nothing came of its work since the last look: its own counters may tell more
    DOUBT = "doubt"  # it answers, but not as a ready engine does, and nothing runs: one token is worth a try
    HANGS = "hangs"


@dataclass(frozen=True, slots=True)
class Request:
    """A running request, as far as it matters here."""

    key: Hashable
    prompt_bytes: int
    stream: bool
    chunks: int
    held: bool = False  # its client takes no more for now


def look_every_s(hang_s: float) -> float:
    """How far apart the looks are, and how long each waits for its answer."""
    return min(_MOST_BETWEEN_S, hang_s / _LOOKS_PER_BOUND)


class Liveness:
    """What was seen of one engine since it became ready. Times are on one clock that never goes back."""

    def __init__(self, now: float, *, speaks_while_busy: bool = True) -> None:
        """`speaks_while_busy`: requests that run do not take all its threads, so that silence says something then."""
        self._speaks_while_busy = speaks_while_busy
        self.evidence = ""  # in words, after `HANGS` or `DOUBT`
        self._asked_at = now  # the first question without an answer since the last one with
        self._unanswered = 0
        self._silent_s = 0.0  # how long it was seen to be silent
        self._odd = 0  # answers in a row that were no 200
        self._status = 200
        self._looked_at = now
        self._stood_s = 0.0  # how long requests ran without anything to show for it
        self._chunks: dict[Hashable, int] = {}
        self._owed: dict[Hashable, int] = {}  # prompt bytes by request, of those that ran since anything moved
        self._answers = 0
        self._bytes_per_token = BYTES_PER_TOKEN
        self._rates: tuple[float | None, float | None] = None, None
        self._counters: tuple[int, ...] | None = None
        self._has_counters = False

    def answered(self, status: int) -> None:
        """A look at its HTTP side got an answer."""
        self._unanswered = 0
        self._odd = 0 if status == 200 else self._odd + 1
        self._status = status

    def unanswered(self, asked_at: float) -> None:
        """A look that was begun at `asked_at` got none in its time."""
        if not self._unanswered:
            self._asked_at = asked_at
        self._unanswered += 1

    def counted(self, counters: tuple[int, ...] | None) -> bool:
        """Its own counters of work done; None when it has none. Whether they moved since the last time."""
        self._has_counters = counters is not None
        moved = counters is not None and counters != self._counters and self._counters is not None
        self._counters = counters
        if moved:
            self._moved()
        return moved

    def proved(self) -> None:
        """It made a token when it was asked to: whatever was odd about it does not matter."""
        self._odd = 0

    def judge(
        self,
        requests: Iterable[Request],
        now: float,
        hang_s: float,
        *,
        answers: int = 0,
        prompt_per_s: float | None = None,
        write_per_s: float | None = None,
        bytes_per_token: float | None = None,
    ) -> Verdict:
        """What is to be thought of it now. `answers` counts the requests that got one so far; the rates are in tokens
        per second, None where unknown.

        Called after each look, so that time in which nobody looked (Corral itself was stopped, or had no processor
        any more than the engine had) does not count.
        """
        every_s = look_every_s(hang_s)
        passed_s = min(now - self._looked_at, 2 * every_s)
        self._looked_at = now
        self._rates = prompt_per_s, write_per_s
        self._bytes_per_token = min(BYTES_PER_TOKEN, bytes_per_token or BYTES_PER_TOKEN)
        running = [each for each in requests if not each.held]
        moved = answers != self._answers or any(each.chunks != self._chunks.get(each.key, 0) for each in running)
        self._answers, self._chunks = answers, {each.key: each.chunks for each in running}
        if moved:
            self._moved()
        if moved or (running and not self._speaks_while_busy):
            self._unanswered = 0
        if self._unanswered < 2:
            self._silent_s = min(now - self._asked_at, 2 * every_s) if self._unanswered else 0.0
        else:
            self._silent_s += passed_s
        # Of a plain answer nothing is seen until it is whole: only counters tell whether it is being made.
        waiting = [each for each in running if each.stream or self._has_counters]
        if waiting and not moved:
            self._stood_s += passed_s
        for each in waiting:
            self._owed[each.key] = 0 if each.chunks else each.prompt_bytes
        if not running:
            self._counters = None
        if self._silent(hang_s, len(running)) or (waiting and self._stands(hang_s, len(running))):
            return Verdict.HANGS
        if self._odd >= 2 and not running:
            self.evidence = f"it answers questions after its health with {self._status}"
            return Verdict.DOUBT
        return Verdict.ASK if running and not moved else Verdict.LIVES

    def _silent(self, hang_s: float, running: int) -> bool:
        # It may have begun just after a look, and be seen after one.
        if self._unanswered < 2 or self._silent_s < hang_s - 3 * look_every_s(hang_s):
            return False
        self.evidence = (
            f"no answer to {self._unanswered} questions after its health in {show_duration(self._silent_s)}"
            f"{_while_running(running)}"
        )
        return True

    def _stands(self, hang_s: float, running: int) -> bool:
        bound_s = self.bound_s(hang_s)
        if self._stood_s < bound_s:
            return False
        self.evidence = (
            f"nothing came of its work for {show_duration(self._stood_s)}{_while_running(running)}"
            f" (the bound was {show_duration(bound_s)}{_prompts(self._tokens, self._rates[0])})"
        )
        return True

    def bound_s(self, hang_s: float) -> float:
        """How long it may stand still with the prompts that it has to read now."""
        prompt_per_s, write_per_s = self._rates
        bound_s = hang_s + PATIENCE * self._tokens / (prompt_per_s or UNKNOWN_PER_S)
        return bound_s + (TOKENS_AT_ONCE / write_per_s if write_per_s else 0.0)

    @property
    def _tokens(self) -> float:
        return sum(self._owed.values()) / self._bytes_per_token

    def _moved(self) -> None:
        self._stood_s = 0.0
        self._owed.clear()


def _while_running(count: int) -> str:
    return "" if not count else f" while {count} request{'s' if count > 1 else ''} ran"


def _prompts(tokens: float, per_s: float | None) -> str:
    if not tokens:
        return ""
    known = f"{per_s:.0f} tokens/s, as measured" if per_s is not None else "a rate not measured yet"
    return f", about {tokens:.0f} tokens of prompt at {known}"
