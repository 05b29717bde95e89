"""The control routes of keys, usage and recorded requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from corral.api_access import (
    KeyAsk,
    KeyInfo,
    KeyMade,
    KeyPick,
    RecordAsk,
    Recording,
    RotateAsk,
    UsageRow,
)
from corral.errors import CallerError, LocalOnly, NoSuchKey, NotJson, StoreError, TooLarge
from corral.gateway.answer import send_json
from corral.gateway.control.bodies import read_body
from corral.gateway.exchange import Exchange
from corral.gateway.routes import Doc, Match, Param, Route, query

T = TypeVar("T")

_BODY = (NotJson, CallerError, TooLarge, StoreError, LocalOnly)
_KEY = Param("key", str, "a key's id or name; - for requests without one")
_SINCE = Param("since", int, "only the last so many seconds, whole days; 0 = all that is known", 0, 0, 10**12)
_BY = Param("by", str, "what to tell apart: key, model, day, several with commas", "key,model")
_PARTS = ("key", "model", "day")


class AccessHost(Protocol):
    """The daemon as these routes see it."""

    async def keys(self) -> list[KeyInfo]: ...

    async def create_key(self, ask: KeyAsk) -> KeyMade: ...

    async def revoke_key(self, ask: KeyPick) -> KeyInfo: ...

    async def rotate_key(self, ask: RotateAsk) -> KeyMade: ...

    async def key_usage(self, key: str | None, since_s: float | None, by: tuple[str, ...]) -> list[UsageRow]: ...

    def recording(self) -> Recording: ...

    def record(self, ask: RecordAsk) -> Recording: ...


class AccessControl:
    """Their handlers."""

    def __init__(self, host: AccessHost) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        host = self._host
        return [
            Route("GET", "/control/keys", self._keys, Doc("The keys, without their secrets", list[KeyInfo])),
            _post("keys/create", KeyAsk, KeyMade, host.create_key, "Make a key; its secret is in this answer only"),
            _post("keys/revoke", KeyPick, KeyInfo, host.revoke_key, "Have a key count no more, from now on", NoSuchKey),
            _post("keys/rotate", RotateAsk, KeyMade, host.rotate_key, "Give a key a new secret", NoSuchKey),
            Route(
                "GET", "/control/usage", self._usage,
                Doc("What was asked and taken", list[UsageRow], params=(_KEY, _SINCE, _BY),
                    errors=(CallerError, NoSuchKey)),
            ),
            Route("GET", "/control/requests", self._requests, Doc("Recorded requests", Recording, errors=(LocalOnly,))),
            _post("requests/record", RecordAsk, Recording, self._record, "Begin or end the recording of requests"),
        ]  # fmt: skip

    async def _keys(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        await send_json(exchange, await self._host.keys())

    async def _usage(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = query(exchange, (_KEY, _SINCE, _BY))
        by = tuple(each.strip() for each in asked["by"].split(",") if each.strip())
        if any(each not in _PARTS for each in by):
            raise CallerError(f"by must be of {', '.join(_PARTS)}", hint="such as by=key,day", param="by")
        await send_json(exchange, await self._host.key_usage(asked["key"], asked["since"] or None, by))

    async def _requests(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        must_be_known(exchange)
        await send_json(exchange, self._host.recording())

    async def _record(self, ask: RecordAsk) -> Recording:
        return self._host.record(ask)


def _post(
    verb: str, takes: type[T], gives: type[Any], act: Callable[[T], Awaitable[Any]], summary: str, *errors: type[Any]
) -> Route:
    async def handle(exchange: Exchange, match: Match, body: bytes) -> None:
        query(exchange, ())
        must_be_known(exchange)
        await send_json(exchange, await act(read_body(takes, body)))

    return Route("POST", f"/control/{verb}", handle, Doc(summary, gives, takes=takes, errors=(*_BODY, *errors)))


def must_be_known(exchange: Exchange) -> None:
    """Whoever is at an open address of this machine is nobody in particular: they must not give themselves a key, nor
    read what others asked. Raises LocalOnly."""
    caller = exchange.caller
    if not exchange.local and (caller is None or not caller.id.startswith("key:")):
        raise LocalOnly(
            f"{exchange.path} is answered on the server's unix socket, or to an administrator's key",
            hint="use the command on the server's machine, or send a key with the scope admin",
        )
