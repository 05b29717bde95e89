"""What the gateway needs of those who keep conversations: one protocol, so that it never imports them."""

from __future__ import annotations

from typing import Protocol

from corral.scheduler.lease import Lease


class Recalled(Protocol):
    """A conversation that was put back into an engine for one request."""

    def answered(self, tail: bytes) -> None:
        """The end of the request's answer."""
        ...

    def died(self) -> None:
        """The engine did, over this request."""
        ...


class Conversations(Protocol):
    def wanted(self, lease: Lease) -> bool:
        """Whether `recall` may find anything for a request of this lease. Asked for each request."""
        ...

    async def recall(self, lease: Lease, target: bytes, body: bytes) -> Recalled | None:
        """Puts back what the request goes on from, where it is kept and saves time. Raises nothing."""
        ...
