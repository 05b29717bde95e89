"""The warden's socket under bad and slow clients."""

from __future__ import annotations

import socket
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from corral.config.paths import Paths
from corral.warden import protocol
from support.engines import until
from support.wardens import Wardens

pytestmark = pytest.mark.usefixtures("warden")
Spawn = Callable[..., dict[str, Any]]


def test_socket_is_private(paths: Paths) -> None:
    """Only this user may connect."""
    assert stat.S_IMODE(paths.warden_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.runtime_dir.stat().st_mode) == 0o700


def test_hello_tells_version_and_pid(wardens: Wardens, warden: subprocess.Popen[bytes]) -> None:
    """The greeting carries the protocol's version and the warden's process id."""
    reply = wardens.client(None).ask("hello")
    assert (reply["protocol"], reply["pid"]) == (protocol.VERSION, warden.pid)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"not json", "malformed"),
        (b"[]", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"{}", "bad_request"),
        (b'{"op": 3}', "bad_request"),
        (b'{"op": "dance"}', "unknown_op"),
        (b'{"op": "hello", "role": "king"}', "bad_request"),
        (b'{"op": "spawn"}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": []}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": "ls"}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": ["a\\u0000b"]}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": ["a"], "env": {"a=b": "c"}}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": ["a"], "env": {"a": 1}}', "bad_request"),
        (b'{"op": "spawn", "unit": "u", "log": "/l", "argv": ["a"], "leash": "long"}', "bad_request"),
        (b'{"op": "stop", "unit": "nobody"}', "unknown_unit"),
        (b'{"op": "stop", "unit": "u", "grace_s": -1}', "bad_request"),
        (b'{"op": "stop", "unit": "u", "grace_s": true}', "bad_request"),
        (b'{"op": "stop", "unit": "u", "grace_s": NaN}', "bad_request"),
        (b'{"op": "signal", "unit": "u", "signal": "9"}', "bad_request"),
        (b'{"op": "x", "pad": "' + b"x" * (protocol.MAX_LINE_BYTES + 1) + b'"}', "too_long"),
    ],
)
def test_bad_lines_are_refused(wardens: Wardens, line: bytes, code: str) -> None:
    """A line that is no request is refused in words, and the connection goes on."""
    client = wardens.client()
    client.send(line + b"\n")
    reply = client.reply(None)
    assert (reply["ok"], reply["error"]["code"]) == (False, code)
    assert reply["error"]["text"]
    assert client.ask("list")["ok"]


def test_requests_may_come_in_pieces_and_heaps(wardens: Wardens) -> None:
    """A request may arrive in many pieces, and many requests in one; each is answered, in order."""
    client = wardens.client()
    for byte in b'{"id": "slow", "op": "list"}\n\n':
        client.send(bytes([byte]))
    assert client.line() == {"id": "slow", "ok": True, "engines": []}
    client.send(b"".join(b'{"id": %d, "op": "list"}\n' % number for number in range(500)))
    assert [client.line()["id"] for _ in range(500)] == list(range(500))  # type: ignore[index]


async def test_client_that_does_not_read_is_dropped(wardens: Wardens, spawn: Spawn) -> None:
    """A client that asks and never reads is dropped; the others notice nothing."""
    good, slow = wardens.client(), wardens.client("observer")
    spawn(good, "a.1", "/bin/sleep", "60", plan="x" * 900_000)
    with pytest.raises(OSError):
        for number in range(10_000):
            slow.send(b'{"id": %d, "op": "list"}\n' % number)
    assert good.ask("list")["ok"]


async def test_clients_are_bounded(wardens: Wardens, paths: Paths) -> None:
    """Connections beyond the bound are closed at once, and room is made when clients leave."""
    good = wardens.client()
    crowd = []
    for _ in range(100):
        each = socket.socket(socket.AF_UNIX)
        each.connect(str(paths.warden_socket))
        crowd.append(each)
    assert good.ask("list")["ok"]
    for each in crowd:
        each.close()

    def greeted() -> bool:
        try:
            return bool(wardens.client().warden_pid)
        except (AssertionError, OSError):
            return False

    await until(greeted, "a new client to be let in")
