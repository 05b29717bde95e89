"""Who may do what: the gateway's questions, answered in `corral.access`. All of it is synchronous and cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Protocol

from corral.errors import Forbidden
from corral.gateway.dialects.usage import Usage

if TYPE_CHECKING:
    from corral.gateway.exchange import Exchange
    from corral.gateway.http.headers import Fields

Scope = Literal["infer", "pull", "admin", "metrics"]
"""What a key may be good for."""


class Caller(Protocol):
    """Who sent a request."""

    @property
    def id(self) -> str:
        """The same for all requests of one caller: callers take turns. Never a secret."""
        ...

    @property
    def owner(self) -> str:
        """Whose what it leaves behind is; empty where nobody needs a key."""
        ...

    def may(self, scope: Scope) -> bool:
        """Whether its key is good for `scope`."""
        ...

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether it may have a model that goes by any of `names`."""
        ...


class Ticket(Protocol):
    """What was set aside for an admitted request, until `settle` says what it took."""

    body: bytes | None
    """What is to be sent to the engine: with a bound to its answer, where tokens are counted and it had none that the
    engine surely obeys. None: as it came."""
    saved: asyncio.Future[None] | None
    """To be awaited before anything is sent, where it is there: what this may spend is not written down yet. Raises
    StoreError."""

    def settle(self, usage: Usage | None, events: int | None) -> None:
        """Ends it. `usage` is None when the engine did not say; `events` then are the pieces that came of the answer, 0
        when there was no answer, None where they tell nothing of its length. Call it exactly once."""
        ...


class Gate(Protocol):
    """Asked once for each request, and once more when its model is known."""

    def enter(self, exchange: Exchange, scope: Scope | None) -> Caller | None:
        """Who it is that asks for what needs `scope` (None: anybody may); None where nobody is told apart.

        Raises Unauthorized, Forbidden, OriginRefused.
        """
        ...

    def constant(self, caller: Caller) -> object:
        """As long as this is the same object, `enter` would say again of a request with the same head, from the same
        address, that it is `caller`'s. None: it has to be asked."""
        ...

    def admit(
        self, exchange: Exchange, model: str, body: bytes, method: str = "POST", path: str | None = None
    ) -> Ticket | None:
        """Whether `exchange.caller` may have `model` answer `body` now. `method` and `path` are those of the engine's
        request; None: the path at which the client asks. Raises Forbidden, LimitReached, and NotJson or CallerError
        where nobody could say what it may take."""
        ...

    def preflight(self, exchange: Exchange) -> Fields | None:
        """The answer's fields where a browser asks whether a page may send something; None where none asks. Raises
        OriginRefused."""
        ...


def may_not(model: str) -> Forbidden:
    """What a caller hears who names a model that it may not have, be there such a model or not."""
    shown = model if len(model) <= 200 else model[:200] + "…"
    return Forbidden(f"this key may not use {shown}", hint="GET /v1/models lists what it may use", model=shown)
