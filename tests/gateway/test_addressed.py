"""Requests to a server that has its own name for the model, and a key."""

from __future__ import annotations

import pytest

from corral.engines.plan import Endpoint
from corral.gateway.path.addressed import addressed


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m", "x":1}', b'{"model":"org/q", "x":1}'),
        (
            b'{"model":"m","pad":"' + b"x" * (300 << 10) + b'"}',
            b'{"model":"org/q","pad":"' + b"x" * (300 << 10) + b'"}',
        ),
        (b'{"model":"another"}', b'{"model":"another"}'),
        (b'{"level":1}', b'{"level":1}'),
        (b"no JSON", b"no JSON"),
        (b"", b""),
    ],
)
async def test_only_corrals_own_name_is_replaced(body: bytes, sent: bytes) -> None:
    """What names another model, or none, is meant for the server as it is."""
    head = [(b"content-type", b"application/json")]
    assert await addressed(Endpoint(model="org/q"), "m", head, body) == (head, sent)


async def test_the_key_goes_along() -> None:
    head = [(b"accept", b"*/*")]
    assert await addressed(Endpoint(key="k"), "m", head, b"{}") == ([*head, (b"authorization", b"Bearer k")], b"{}")
