"""What a dialect is to the gateway: how its errors look, and how an engine's answer becomes one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.scheduler.lease import Lease


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire API. `error` makes the JSON body of an error (bytes: a body of another `kind`), `event` the last bytes
    of a stream that broke."""

    name: str
    error: Callable[[CorralError], Any]
    event: Callable[[CorralError], bytes]
    status: Callable[[CorralError], int] = lambda exc: exc.status
    comments: bool = True  # its streams are event streams, in which there may be some
    numbered: bool = False  # errors carry the request's id, as `request_id` and in the field `request-id`
    kind: bytes = b"application/json"  # the content type of an error
    plain: bytes = b"application/json"  # that of a JSON answer which is made or translated here


class Translation(Protocol):
    """One answer of an engine on its way into another dialect. Fed in order; keeps what it must remember of it.

    A new one is made for each try: nothing that a dead engine said is in it.
    """

    kind: bytes
    """The content type of a streamed answer."""

    def events(self, whole: bytes) -> bytes:
        """Whole server-sent events of the engine as bytes of this dialect; empty when they say nothing yet."""
        ...

    def end(self, rest: bytes) -> bytes:
        """The end of a stream; `rest` is what came behind the last whole event."""
        ...

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        """A plain answer, errors included, as status and JSON body. May raise CorralError."""
        ...


class Keeping(Protocol):
    """A translation that has something to be done when the answer is whole, before its end goes out."""

    async def keep(self) -> None: ...


async def kept(translation: Translation) -> None:
    """Has `translation` do what it has to when its answer is whole."""
    if (keep := getattr(translation, "keep", None)) is not None:
        await keep()


Translate = Callable[[Lease], Translation]


class Said(NamedTuple):
    """One route of a peer's API, and what becomes of it here: a row of docs/dialects.md."""

    method: str
    path: str
    how: Literal["native", "translated", "corral", "refused"]  # by the engine, by it in other words, by us, not at all
    words: str = ""
    shown_by: str = ""  # the test that shows it, as `tests/…py::test_…`
