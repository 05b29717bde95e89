"""Which model a request names: its body first, then `?model=`."""

from __future__ import annotations

from urllib.parse import parse_qsl

from corral.gateway.exchange import Exchange


def parameter(exchange: Exchange, name: str) -> str | None:
    """The last value of `name` in the query; None where there is none, or it is empty."""
    if not exchange.query:
        return None
    return dict(parse_qsl(exchange.query.decode("latin-1"))).get(name)


def named(exchange: Exchange, in_body: str | None) -> str | None:
    """`in_body`, or else what the query says."""
    return in_body or parameter(exchange, "model")
