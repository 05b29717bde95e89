"""Host and Origin: no page of another site gets in, whatever it tries."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from corral.access.origin import (
    Rules,
    Said,
    client_address,
    is_allowed_origin,
    is_own_host,
    is_own_page,
    preflight,
)

NONE = Rules()


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1:8642", b"127.0.0.1", b"[::1]:8642", b"[::1]", b"localhost:1", b"LOCALHOST", b"app.localhost",
        b"192.168.1.5:8642", b"host.docker.internal:8642", b"host.containers.internal", b"localhost.", None, b"",
    ],
)  # fmt: skip
def test_own_names(host: bytes | None) -> None:
    """Addresses, localhost, the names under which containers reach this machine, and no name at all."""
    assert is_own_host(host, NONE)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example", b"evil.example:8642", b"127.0.0.1.evil.example", b"localhost.evil.example", b"1e100.net",
        b"evil.internal", b"2130706433", b"127.1", b"0x7f.0.0.1", b"localhost:80:80", b"user@localhost", b"[::1].evil",
    ],
)  # fmt: skip
def test_other_names(host: bytes) -> None:
    """A name that somebody else may have lead here, and what only looks like an address."""
    assert not is_own_host(host, NONE)


def test_configured_names() -> None:
    """Names of `allowed_hosts`, in any case and with any port."""
    assert is_own_host(b"Box.LAN:8642", Rules(hosts=("box.lan",)))
    assert not is_own_host(b"notbox.lan", Rules(hosts=("box.lan",)))


@pytest.mark.parametrize(
    ("said", "own"),
    [
        (Said(), True),  # no browser
        (Said(b"127.0.0.1:8642", b"http://127.0.0.1:8642"), True),
        (Said(b"localhost:8642", b"http://localhost:8642", b"same-origin"), True),
        (Said(b"localhost:8642", None, b"none"), True),  # typed into the address bar
        (Said(b"localhost:8642", None, b"same-origin"), True),
        (Said(b"127.0.0.1:8642", b"http://127.0.0.1:9000"), False),
        (Said(b"127.0.0.1:8642", b"http://localhost:8642"), False),
        (Said(b"127.0.0.1:8642", b"https://127.0.0.1:8642"), False),
        (Said(b"127.0.0.1:8642", b"null"), False),
        (Said(b"127.0.0.1:8642", b""), False),
        (Said(b"127.0.0.1:8642", b"http://evil.example"), False),
        (Said(None, b"http://evil.example"), False),
        (Said(b"127.0.0.1:8642", None, b"cross-site"), False),
        (Said(b"127.0.0.1:8642", None, b"same-site"), False),
    ],
)
def test_own_pages(said: Said, own: bool) -> None:
    """Only the very origin of the listener counts as its own."""
    assert is_own_page(said, tls=False) is own


def test_allowed_origins() -> None:
    """By globs; never null, which every sandboxed page is."""
    rules = Rules(origins=("http://localhost:*", "https://*.example.org"))
    for origin in (b"http://localhost:5173", b"https://chat.example.org", b"HTTP://LOCALHOST:1"):
        assert is_allowed_origin(origin, rules)
    for other in (
        b"http://localhost.evil.example:1",
        b"https://example.org",
        b"http://chat.example.org",
        b"null",
        None,
    ):
        assert not is_allowed_origin(other, rules)
    assert not is_allowed_origin(b"null", Rules(origins=("*",)))


def test_a_preflight_names_the_origin_and_the_fields() -> None:
    """The fields that were asked for, and the word for private networks only where it was asked for."""
    fields = dict(preflight(b"https://a", b"authorization, x-stainless-os", False))
    assert fields[b"access-control-allow-origin"] == b"https://a"
    assert fields[b"access-control-allow-headers"] == b"authorization, x-stainless-os"
    assert fields[b"vary"] == b"origin"
    assert b"access-control-allow-private-network" not in fields
    assert dict(preflight(b"https://a", None, True))[b"access-control-allow-private-network"] == b"true"


TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1"))


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("203.0.113.9", [b"1.2.3.4"], "203.0.113.9"),  # anybody can say that
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the client's own invention stands first
        ("10.0.0.1", [b"203.0.113.9, 10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", [b"203.0.113.9", b"10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", [b"10.0.0.9, 10.0.0.7"], "10.0.0.9"),
        ("::1", [b"[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", [b"203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", [b"203.0.113.9, unknown"], "10.0.0.1"),
    ],
)
def test_who_is_behind_a_proxy(peer: str, said: list[bytes], address: str) -> None:
    """Only what trusted proxies say counts, from the near end on."""
    assert client_address(peer, said, TRUSTED) == address
