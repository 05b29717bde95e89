"""Which requests of browsers are answered: Host and Origin. Pure.

Two things that a web page could do to a server on this machine are kept from it. With a name of its own that suddenly
leads to 127.0.0.1 (DNS rebinding) it would count as the server's own page: so the Host field must be an address, or a
name that nobody else can give away. And from where it is, it could send requests without reading the answers: so what
a browser says another page began is refused, whatever it asks for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from corral.lazy_dataclass import dataclass

_NAMES = ("localhost", "host.docker.internal", "host.containers.internal", "host.lima.internal",
          "gateway.docker.internal", "model-runner.docker.internal")  # fmt: skip
"""Names of this machine, and those under which containers reach it. `.internal` is nobody's to give away."""
_PORT = re.compile(r":[0-9]{0,5}$")
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
MAX_AGE_S = 600


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed beside what is always allowed."""

    hosts: tuple[str, ...] = ()  # further names of this server, in lower case
    origins: tuple[str, ...] = ()  # such as https://app.example.org, or a glob of them


@dataclass(frozen=True, slots=True)
class Said:
    """What a request's head says of where it comes from; None = nothing."""

    host: bytes | None = None
    origin: bytes | None = None
    site: bytes | None = None  # Sec-Fetch-Site


def host_name(host: bytes) -> str:
    """The name in a Host field: lower case, without port and brackets."""
    text = _PORT.sub("", host.decode("latin-1").lower())
    return text.removeprefix("[").removesuffix("]").removesuffix(".")


def is_own_host(host: bytes | None, rules: Rules) -> bool:
    """Whether the Host field is an address, or one of our names. One who sends none is no browser."""
    if not host:
        return True
    name = host_name(host)
    if name in _NAMES or name.endswith(".localhost") or name in rules.hosts:
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_own_page(said: Said, *, tls: bool) -> bool:
    """Whether the page that sent the request, if a browser's page did, is one of this server's own."""
    if said.origin is not None:
        scheme = b"https://" if tls else b"http://"
        return said.host is not None and said.origin.lower() == scheme + said.host.lower()
    return said.site in (None, b"same-origin", b"none")


def is_allowed_origin(origin: bytes | None, rules: Rules) -> bool:
    """Whether the configuration lets pages of `origin` in."""
    if origin is None or origin == b"null":  # null is what every sandboxed page says
        return False
    text = origin.decode("latin-1").lower()
    return any(fnmatchcase(text, each) for each in rules.origins)


def shared_with(origin: bytes) -> list[tuple[bytes, bytes]]:
    """Fields that let pages of `origin` read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def preflight(origin: bytes, wanted: bytes | None, private_network: bool) -> list[tuple[bytes, bytes]]:
    """The answer to a browser that asks whether it may send a request. `wanted` are the fields that it would send."""
    fields = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", wanted or b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"%d" % MAX_AGE_S),
        (b"vary", b"origin"),
    ]
    return [*fields, (b"access-control-allow-private-network", b"true")] if private_network else fields


def client_address(
    peer: str, forwarded: Sequence[bytes], trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> str:
    """Who sent a request that came from `peer`: of what trusted proxies say in X-Forwarded-For, the last address that
    is none of theirs. What anybody else says there counts for nothing."""
    address = peer
    chain = [part.strip() for value in forwarded for part in value.decode("latin-1").split(",")]
    while is_trusted(address, trusted) and chain:
        following = _address(chain.pop())
        if following is None:
            break  # no address: whatever stands before it cannot be relied on
        address = following
    return address


def is_trusted(address: str, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(found in network for network in trusted if network.version == found.version)


def _address(text: str) -> str | None:
    text = text.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
