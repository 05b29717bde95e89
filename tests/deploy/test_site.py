"""Which of a server's addresses the programs beside it are given."""

from __future__ import annotations

import pytest

from corral.deploy.site import Heard, Site, metrics_path, nearest
from corral.errors import ConfigError

LAN = Heard("192.168.1.5", 8643, tls=True, own_ca=True, key=True)


@pytest.mark.parametrize(
    ("heard", "wanted"),
    [
        ([LAN, Heard("127.0.0.1", 8642)], ("127.0.0.1", 8642)),
        ([Heard("0.0.0.0", 8643, tls=True, key=True), LAN], ("127.0.0.1", 8643)),
        ([Heard("::", 8643, tls=True, key=True)], ("::1", 8643)),
        ([Heard("127.0.0.1", 1, key=True), Heard("127.0.0.1", 2)], ("127.0.0.1", 2)),
        ([Heard("127.0.0.1", 1, tls=True), Heard("localhost", 2)], ("localhost", 2)),
        ([Heard("127.0.0.1", 1, dialect="llamacpp"), Heard("127.0.0.1", 2)], ("127.0.0.1", 2)),
        ([LAN], ("192.168.1.5", 8643)),
    ],
)
def test_the_nearest(heard: list[Heard], wanted: tuple[str, int]) -> None:
    """Loopback before others, without a key before with one, plain before TLS; "every interface" is loopback too."""
    found = nearest(heard)
    assert (found.host, found.port) == wanted


def test_what_is_said_of_it_stays() -> None:
    """An address for every interface is as it was in all else."""
    found = nearest([Heard("0.0.0.0", 8643, tls=True, own_ca=True, key=True, dialect="ollama")])
    assert (found.tls, found.own_ca, found.key, found.dialect) == (True, True, True, "ollama")


def test_none() -> None:
    """A server on unix sockets alone cannot be scraped, and the error says what to add."""
    with pytest.raises(ConfigError, match="no TCP address") as caught:
        nearest([])
    assert "127.0.0.1:8642" in caught.value.hint


def test_a_dialect_with_metrics_of_its_own() -> None:
    """Where `/metrics` may be an engine's, Corral's are asked for under its own prefix."""
    assert [metrics_path(Heard("h", 1, dialect=each)) for each in (None, "ollama", "llamacpp")] == [
        "/metrics", "/control/metrics", "/control/metrics",
    ]  # fmt: skip


def test_written_out() -> None:
    """IPv6 addresses stand in brackets."""
    assert Site("::1", 8642).authority == "[::1]:8642"
    assert (Site("box", 1, tls=True).scheme, Site("box", 1).authority) == ("https", "box:1")
