"""The client: addresses, what is found, and errors by their code."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral import errors
from corral.client import Client, Finished, Piece
from corral.config.paths import Paths
from corral.connection import Address, error_from, parse_address
from support.small_server import NAMES, SmallServer


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address(host="localhost")),
        (":9000", Address(port=9000)),
        ("0.0.0.0:1", Address(port=1)),
        ("[::1]:2", Address(host="::1", port=2)),
        ("http://box", Address(host="box", port=80)),
        ("https://box/base/", Address(host="box", port=443, tls=True, base="/base")),
        ("unix:/a/b", Address(socket=Path("/a/b"))),
        ("unix:///a/b", Address(socket=Path("/a/b"))),
        ("/a/b", Address(socket=Path("/a/b"))),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Each usual spelling of an address is understood."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "a b", "ftp://x", "h:port", "http://u:p@h", "h:99999", "http://h?x"])
def test_bad_addresses(text: str) -> None:
    """What is no address is an error of the caller, with a hint."""
    with pytest.raises(errors.CallerError) as raised:
        parse_address(text)
    assert raised.value.hint


def test_errors_keep_their_class() -> None:
    """An error comes back as the class of its code, with hint and details; an unknown code is kept in the details."""
    found = error_from({"code": "queue_full", "message": "m", "hint": "h", "details": {"retry_after_s": 3, "hint": 1}})
    assert type(found) is errors.QueueFull
    assert (found.message, found.hint, found.retry_after_s) == ("m", "h", 3)
    newer = error_from({"code": "later_made", "message": "m", "status": 422})
    assert type(newer) is errors.CallerError
    assert newer.details == {"code": "later_made"}


def test_find(paths: Paths, server: SmallServer) -> None:
    """The server of the state directory is found by its socket, and an explicit address comes before the variable."""
    client = Client.find(paths, env={})
    assert [model.name for model in client.models()] == list(NAMES)
    assert Client.find(paths, "h:1", {"CORRAL_HOST": "h:2"}).address.port == 1
    assert Client.find(paths, None, {"CORRAL_HOST": "h:2"}).address.port == 2


def test_chat_stream(paths: Paths, server: SmallServer) -> None:
    """A chat comes piece by piece and ends with its figures."""
    *pieces, done = Client.find(paths, env={}).chat_stream("thinker", [{"role": "user", "content": "x"}])
    assert pieces[0] == Piece("Hm, a ", reasoning=True)
    assert "".join(p.text for p in pieces if isinstance(p, Piece) and not p.reasoning) == "Corral runs models."
    assert isinstance(done, Finished)
    assert (done.prompt_per_s, done.completion_per_s, done.load_ms) == (500.0, 100.0, 18.5)
    assert done.ttft_ms is not None and done.ttft_ms <= done.total_ms


def test_closing_a_stream(paths: Paths, server: SmallServer) -> None:
    """Closing the iterator closes the connection, and so ends the work."""
    stream = Client.find(paths, env={}).chat_stream("endless", [])
    next(stream)
    stream.close()
    assert server.left.wait(10)
