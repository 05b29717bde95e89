"""How the program ends: exit codes, errors on standard error, Ctrl-C, readers that leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from corral.cli.exits import MEANINGS, exit_code
from corral.config.paths import Paths
from corral.errors import CorralError
from support.small_server import SmallServer, until

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def kinds(root: type[CorralError] = CorralError) -> list[type[CorralError]]:
    return [root, *(kind for each in root.__subclasses__() for kind in kinds(each))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code(kind: type[CorralError]) -> None:
    """Each error of the tree ends the program with a documented code that is not "done"."""
    assert exit_code(kind("x")) in MEANINGS.keys() - {0}


@pytest.mark.parametrize(
    ("args", "code", "says", "hints"),
    [
        (("ps",), 3, "no Corral server is running", "corral serve"),
        (("list",), 3, "no Corral server is running", "corral serve"),
        (("lst",), 2, "no command 'lst'", "corral list?"),
        (("ps", "--al"), 2, "no such option", "corral ps --help"),
        (("stop",), 2, "name one model, or --all", "corral stop --help"),
        (("start",), 2, "its name is needed", "corral start --help"),
        (("run", "demo"), 2, "standard input is empty", "corral run --help"),
        (("ps", "--host", "not an address"), 2, "not the address of a server", "HOST:PORT"),
        (("serve", "--idle-exit", "soon"), 2, "not a duration", "corral serve --help"),
    ],
)
def test_without_a_server(corral: Corral, args: tuple[str, ...], code: int, says: str, hints: str) -> None:
    """A wrong call or a missing server is one error with a hint, nothing on standard output, and its own code."""
    run = corral(*args)
    first, *rest = run.stderr.splitlines()
    assert (run.returncode, run.stdout) == (code, "")
    assert first.startswith("error: ") and says in first
    assert rest[-1].startswith("hint: ") and hints in rest[-1]
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("run", "nobody", "hi"), 4, "no model is called 'nobody'"),
        (("logs", "nobody"), 4, "hint: did you mean demo?"),
        (("start", "ill"), 6, "| out of memory"),
        (("run", "ill", "hi"), 6, "error: the engine died"),
        (("run", "cut", "hi"), 3, "ended in the middle"),
    ],
)
def test_errors_of_the_server(corral: Corral, server: SmallServer, args: tuple[str, ...], code: int, says: str) -> None:
    """The server's errors, in the middle of an answer too, keep their message, hint and the engine's last words."""
    run = corral(*args)
    assert run.returncode == code
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_error_as_json(corral: Corral, server: SmallServer) -> None:
    """With --json an error is one JSON object on standard error."""
    told = json.loads(corral("start", "ill", "--json").stderr)["error"]
    assert (told["code"], told["hint"]) == ("start_failed", "see: corral logs ill")
    assert json.loads(corral("--json", "frobnicate").stderr)["error"]["code"] == "usage"


def test_stale_daemon_file(corral: Corral, paths: Paths) -> None:
    """A daemon file left by a killed server is told from a server that runs."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    paths.daemon_file.write_text(json.dumps({"pid": gone.pid}))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(paths.control_socket))
    run = corral("ps")
    assert run.returncode == 3
    assert f"(process {gone.pid}) has ended without a word" in run.stderr


def test_not_a_corral_server(corral: Corral, paths: Paths) -> None:
    """Something else that listens there is said to be no Corral server."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        child = subprocess.Popen(
            [sys.executable, "-m", "corral", "ps", "--host", f"127.0.0.1:{other.getsockname()[1]}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        with other.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
            _, err = child.communicate(timeout=20)
    assert child.returncode == 3
    assert "no Corral server (HTTP 404)" in err


class _Running:
    def __init__(self, env: dict[str, str], *args: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "corral", *args],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def out(self) -> IO[bytes]:
        assert self.child.stdout is not None
        return self.child.stdout

    def end(self) -> tuple[int, str]:
        _, err = self.child.communicate(timeout=20)
        return self.child.returncode, err.decode()


def test_interrupt_in_an_answer(corral_env: dict[str, str], server: SmallServer) -> None:
    """Ctrl-C in the middle of an answer ends quietly with 130, and the server sees its client leave."""
    run = _Running(corral_env, "run", "endless", "hi")
    assert run.out.read(6) == b"again "
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (130, "")
    until(server.left.is_set)


def test_interrupt_before_an_answer(corral_env: dict[str, str], server: SmallServer) -> None:
    """Ctrl-C while the server has not answered yet ends quietly with 130, and the request is withdrawn."""
    run = _Running(corral_env, "run", "stuck", "hi")
    until(server.chats)
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (130, "")
    until(server.left.is_set)


@pytest.mark.parametrize(
    ("args", "first"),
    [(("logs", "demo", "-f", "-n", "1"), b"line 5\nlater line\n"), (("events", "-f", "--json"), b"{")],
)
def test_follow(corral_env: dict[str, str], server: SmallServer, args: tuple[str, ...], first: bytes) -> None:
    """Following prints each line at once, and Ctrl-C ends it quietly with 130."""
    run = _Running(corral_env, *args)
    assert run.out.read(len(first)) == first
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (130, "")


def test_follow_outlives_no_server(corral_env: dict[str, str], server: SmallServer) -> None:
    """Following ends with "no server" when the server does."""
    run = _Running(corral_env, "events", "-f")
    lines = [run.out.readline().split()[-1] for _ in range(4)]
    assert lines == [b"1", b"2", b"3", b"4"]
    server.closing.set()
    code, err = run.end()
    assert code == 3
    assert "hint: " in err


def test_reader_that_leaves(corral_env: dict[str, str], server: SmallServer) -> None:
    """A reader that leaves, as `head` does, ends the command quietly."""
    run = _Running(corral_env, "run", "endless", "hi")
    assert run.out.read(6) == b"again "
    run.out.close()
    assert run.child.stderr is not None
    assert run.child.stderr.read() == b""
    run.child.stderr.close()
    assert run.child.wait(20) == 141
    until(server.left.is_set)


@pytest.mark.skipif(sys.platform != "linux", reason="a disk that is always full is a device of Linux")
def test_output_to_a_full_disk(corral_env: dict[str, str], server: SmallServer) -> None:
    """An output that takes no more is one clear error, whether it is noticed while writing or at the end."""
    for unbuffered in ("", "1"):
        with Path("/dev/full").open("wb") as full:
            command = [sys.executable, "-m", "corral", "list"]
            env = {**corral_env, "PYTHONUNBUFFERED": unbuffered}
            run = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
        assert run.returncode == 1
        assert run.stderr.startswith("error: cannot write the output: No space left on device\nhint: ")


def test_output_to_a_closed_pipe(corral_env: dict[str, str], server: SmallServer) -> None:
    """Also a short output whose reader has left already ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "corral", "list"], env=corral_env, stdout=writer, stderr=subprocess.PIPE, timeout=20
        )
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")
