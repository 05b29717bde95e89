"""The addresses of a server listen while it still loads its modules."""

from __future__ import annotations

import gc
import http.client
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from corral import serve
from corral.config.paths import Paths
from corral.errors import PortInUse
from corral.serve_options import ServeOptions
from support.server import Server, until


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.enable()  # starting a server has it switched off


class Enough(Exception):
    """Breaks a start off."""


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.usefixtures("collected", "corral_env")
def test_it_listens_before_the_rest_is_loaded(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """A client may connect when nothing but the configuration was looked at; a start that fails later refuses again."""
    seen = []

    def begin(paths: Paths) -> subprocess.Popen[bytes] | None:
        seen.append(connects(port))
        raise Enough

    monkeypatch.setattr(serve, "_begin_warden", begin)
    with pytest.raises(Enough):
        serve.serve(ServeOptions(listen=(f"127.0.0.1:{port}",)))
    assert seen == [True]
    assert not connects(port)


@pytest.mark.usefixtures("collected", "corral_env")
def test_a_taken_port_is_told_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address that cannot be had one hears before the warden is begun."""
    monkeypatch.setattr(serve, "_begin_warden", lambda paths: pytest.fail("the warden was begun"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortInUse, match="in use"):
        serve.serve(ServeOptions(listen=(f"127.0.0.1:{taken.getsockname()[1]}",)))


def test_whoever_comes_early_is_answered(paths: Paths, port: int) -> None:
    """A request sent as soon as a connection is to be had is answered, if only once the server is up."""
    statuses = []

    def ask() -> None:
        until(lambda: connects(port), "the server to listen")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        statuses.append(connection.getresponse().status)
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    with Server(paths, listen=f"127.0.0.1:{port}") as server:
        asking.join(60)
        assert statuses == [200]
        assert server.url.endswith(f":{port}")
