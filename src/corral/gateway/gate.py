"""Who may do what: the gateway's questions, answered in `corral.access`. All of it is synchronous and cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from corral.gateway.usage import Usage

if TYPE_CHECKING:
    from corral.gateway.exchange import Exchange

Scope = Literal["infer", "pull", "admin", "metrics"]
"""What a key may be good for."""


class Caller(Protocol):
    """Who sent a request."""

    @property
    def id(self) -> str:
        """The same for all requests of one caller: callers take turns. Never a secret."""
        ...


class Ticket(Protocol):
    """One admitted request: what was set aside for it, until `settle` says what it took."""

    def settle(self, usage: Usage | None, events: int) -> None:
        """Ends it. `usage` is None when the engine did not say; `events` then are the pieces that came of the answer,
        none when there was no answer. Call it exactly once."""
        ...


class Gate(Protocol):
    """Asked once for each request, and once more when its model is known."""

    def enter(self, exchange: Exchange, scope: Scope | None) -> Caller | None:
        """Who it is that asks for what needs `scope` (None: anybody may); None where nobody is told apart.

        Raises Unauthorized, Forbidden, Limited.
        """
        ...

    def admit(self, exchange: Exchange, model: str, body: bytes) -> Ticket | None:
        """Whether `exchange.caller` may have `model` answer `body` now. Raises Forbidden, Limited."""
        ...
