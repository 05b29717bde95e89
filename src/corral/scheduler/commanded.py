"""What the scheduler commands: the supervisor's units, as it sees them."""

from __future__ import annotations

from typing import Protocol

from corral.engines.plan import Endpoint


class Units(Protocol):
    """What the scheduler needs of the supervisor."""

    async def start(self, model: str, generation: int) -> None:
        """Reports through `Scheduler.unit_ready` or `unit_ended`."""
        ...

    async def stop(self, model: str, generation: int, why: str) -> None: ...

    async def sleep(self, model: str, generation: int, why: str) -> None:
        """Reports through `Scheduler.unit_slept`, or `unit_ended` where it had to be stopped."""
        ...

    async def wake(self, model: str, generation: int) -> None:
        """Reports through `Scheduler.unit_ready` or `unit_ended`."""
        ...

    def drain(self, model: str, generation: int, why: str) -> None: ...

    def expect(self, model: str, generation: int) -> None:
        """A start of that model has to wait for something: what can be done for it already may be done."""
        ...

    async def check(self, model: str, generation: int) -> bool:
        """Whether a start can be planned. Where it cannot, that is reported through `Scheduler.unit_ended`."""
        ...

    def forgo(self, model: str) -> None:
        """Nobody waits for that model any more."""
        ...

    def foretell(self, unit: str) -> None:
        """A start of that unit, which nobody waits for alone, is held up: what it would take now is to be found out and
        told to `Scheduler.planned`."""
        ...

    def doubt(self, model: str, generation: int) -> None:
        """That unit dropped a connection: its end, if it is one, is to be reported soon."""
        ...

    def ails(self, model: str, generation: int, said: str) -> str | None:
        """Why that unit must be stopped for what it says of itself; None where that is known already."""
        ...

    async def blameless(self, model: str, generation: int, within_s: float) -> bool:
        """Whether that process ended for a reason that has nothing to do with its requests, or lives. Waits."""
        ...

    async def mended(self, model: str) -> bool:
        """Whether the model's files have changed since a start of it failed."""
        ...

    def endpoint(self, model: str) -> tuple[str, Endpoint]:
        """The newest generation's unit id and where it listens."""
        ...
