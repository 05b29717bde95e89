"""`Lease`: the right to use a ready unit until the response stream ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from corral.engines.plan import Endpoint


class Lease(NamedTuple):
    """A slot held on a ready unit, and what it cost to get it."""

    model: str
    unit: str
    generation: int
    endpoint: Endpoint
    queued_ms: float = 0.0  # from asking to granting, everything included
    load_ms: float = 0.0  # of the load this request waited for; 0 when the unit was ready
    swap_ms: float = 0.0  # stopping what had to go first; 0 when nothing had to
    queue_position: int = 0  # when it began to wait; 0 = it did not
    degraded: str = ""  # what the unit does without, in words
    waited_for: str = ""  # the memory that the start it waited for lacked, in words


class Held(Protocol):
    """A lease that was there at once."""

    lease: Lease

    def give_back(self) -> None:
        """Ends it. Whoever has it calls this exactly once."""
        ...


class Leases(Protocol):
    """What the gateway needs of the scheduler."""

    def lease(
        self, model: str, *, deadline: float | None = None, key: str = "", keep_alive_s: float | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """Waits for a ready unit of `model` (a configured name) and holds it until the block is left.

        `deadline` is on `clock.monotonic`; None takes the configured queue timeout. Cancelling the wait gives the
        place in the queue back; a load that was begun for it goes on.

        `key` says who asks: keys take turns. `keep_alive_s` is the unit's idle time from this request on, until another
        one says otherwise: 0 stops it after this one, infinity keeps it as if it were pinned.

        Raises QueueFull, DeadlinePassed, CannotFit, StartFailed, Stopping, UnknownModel.
        """
        ...

    def try_lease(self, model: str) -> Held | None:
        """A lease on a ready unit of `model` with a free slot, without any waiting; None where `lease` would have to
        wait, or to say why there is none."""
        ...

    def unit_gone(self, lease: Lease, why: str) -> None:
        """The gateway's word that the unit refused or dropped a connection before any byte of an answer. The
        supervisor looks at the process; a following `lease` waits for the replacement."""
        ...

    def unit_ails(self, lease: Lease, said: str) -> None:
        """The gateway's word that the unit's own error says it has no memory or no GPU left. It is replaced, by a
        smaller plan where there is one; a following `lease` waits for that."""
        ...

    async def blameless(self, lease: Lease) -> bool:
        """Whether the unit of a lease that was lost ended for a reason that has nothing to do with its requests: Corral
        ended it, or something outside did; or lives on. Waits a moment until its end is known."""
        ...
