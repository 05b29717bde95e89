"""`Begun`: a request that was sent to an engine already, for whoever goes on with it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NamedTuple

from corral.gateway.gate import Ticket
from corral.gateway.path.link import Link
from corral.gateway.path.sent import Sent
from corral.gateway.path.upstream import Response
from corral.scheduler.lease import Held, Lease
from corral.supervisor.pulse import Pulse, Pulses


class Begun(NamedTuple):
    """What was done for it so far. Whoever takes it has the lease, the pulse and the ticket to end."""

    model: str
    target: bytes
    body: bytes
    stream: bool
    held: Held
    pulse: Pulse
    ticket: Ticket | None
    asking: AbstractAsyncContextManager[Response]  # gives the first engine's answer, or raises why there is none
    engine: Link | None  # the connection on which that comes
    sent: Sent | None = None  # what the client has of a stream that broke
    hides: bool = False  # the engine's count is not for the client

    def lease(self) -> AbstractAsyncContextManager[Lease]:
        return _Lease(self.held)

    def drop(self, pulses: Pulses) -> None:
        """Ends everything: nobody goes on with it."""
        if self.engine is not None:
            self.engine.close()
        pulses.end(self.pulse)
        if self.ticket is not None:
            # The engine may have read all of the prompt, and of an answer in one piece nobody knows anything.
            self.ticket.settle(None, max(self.pulse.chunks, 1) if self.stream else None)
        self.held.give_back()


class _Lease(AbstractAsyncContextManager[Lease]):
    __slots__ = ("_held",)

    def __init__(self, held: Held) -> None:
        self._held = held

    async def __aenter__(self) -> Lease:
        return self._held.lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.give_back()
