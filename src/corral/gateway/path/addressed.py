"""A request as a server wants it that somebody else runs: under its own name for the model, and with its key."""

from __future__ import annotations

import asyncio

from corral.engines.plan import Endpoint
from corral.errors import CorralError
from corral.gateway.http.headers import Fields
from corral.gateway.path.peek import peek, splice

_LARGE_BYTES = 256 << 10  # from this size on a body is read in a thread


async def addressed(endpoint: Endpoint, model: str, headers: Fields, body: bytes) -> tuple[Fields, bytes]:
    """`headers` and `body` for `endpoint`. Where a body names `model`, it gets the name that is used there; other
    bodies stay as they are."""
    if endpoint.key:
        headers = [*headers, (b"authorization", b"Bearer " + endpoint.key.encode("ascii"))]
    if not endpoint.model or not body:
        return headers, body
    if len(body) < _LARGE_BYTES:
        return headers, _renamed(body, model, endpoint.model)
    return headers, await asyncio.to_thread(_renamed, body, model, endpoint.model)


def _renamed(body: bytes, model: str, name: str) -> bytes:
    try:
        seen = peek(body)
    except CorralError:
        return body  # it is for an engine's own route, whatever it means there
    return splice(body, seen, name) if seen.model == model else body
