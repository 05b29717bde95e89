"""Whether an engine passes a request over: answers others that came later, and reads nothing of its prompt. Pure.

llama.cpp fills each batch with the prompts of its slots in their order. Where the first slots always have new prompts
that fill it, the last ones get no turn: one request stands still for as long as there is more work (llama.cpp issues
6607, 27185). Nothing new is given to such an engine until it has read that prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

MOST_S: Final = 10.0
"""Others wait no longer than that for one prompt, as long as models' `max_wait` is by default."""


class Slot(NamedTuple):
    """One of an engine's slots."""

    number: int
    task: int  # the same for as long as it works on one request
    working: bool
    read: int  # tokens of the prompt
    written: int  # tokens of the answer

    @property
    def reads(self) -> bool:
        """Its prompt is not read to its end."""
        return self.working and self.written == 0


class Running(Protocol):
    """What is needed of a request that runs; `supervisor.pulse.Pulse` has it."""

    judged: bool
    chunks: int
    after: int  # requests that the engine had answered when this one was sent


def late(running: Iterable[Running], answered: int, slots: int) -> bool:
    """Whether one may be passed over: nothing came of it, while more than twice as many were answered as have room."""
    return slots > 1 and any(each.judged and not each.chunks and answered - each.after > 2 * slots for each in running)


def passed_over(before: Iterable[Slot], now: Iterable[Slot]) -> frozenset[int]:
    """The tasks of which nothing was read or written between two readings, between which others were answered."""
    known = {slot.number: slot for slot in before}
    return frozenset(slot.task for slot in now if slot.reads and known.get(slot.number) == slot)


def still(tasks: frozenset[int], now: Iterable[Slot]) -> bool:
    """Whether one of `tasks` is not read to its end yet."""
    return any(slot.reads and slot.task in tasks for slot in now)
