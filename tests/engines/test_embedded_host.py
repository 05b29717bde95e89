"""The embedded engine's child program, run as itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.engines import embedded_host, exits
from support import ggufs
from support.http import unix_request, wait_healthy

HOST = str(Path(embedded_host.__file__))
WORDS = ["the", "gate", "is", "open"]


@contextmanager
def running(*argv: str, log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        child = subprocess.Popen([sys.executable, "-I", HOST, *argv], stdout=out, stderr=out, env=env)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_ready(path: Path, child: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once the engine answers and its signal handler is there."""
    wait_healthy(path, lambda: child.poll() is None)
    deadline = time.monotonic() + 10
    while b"corral: ready\n" not in log.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ended(*argv: str, log: Path) -> tuple[int, str]:
    """The exit code, and the last line of the log."""
    with running(*argv, log=log) as child:
        code = child.wait(20)
    return code, log.read_text().splitlines()[-1]


@pytest.fixture
def model(short_tmp: Path) -> Path:
    return ggufs.write_chain(short_tmp / "chain.gguf", WORDS)


@pytest.fixture
def log(short_tmp: Path) -> Path:
    return short_tmp / "log"


def test_serves_until_term(model: Path, short_tmp: Path, log: Path) -> None:
    """It answers on its unix socket under its alias, and TERM ends it with 0 and takes the socket away."""
    path = short_tmp / "e.sock"
    argv = ["-m", str(model), "--host", str(path), "--alias", "gate", "-c", "256", "--metrics", "--no-ui"]
    # Nothing of Python's environment can change what runs.
    env = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere"}
    with running(*argv, log=log, env=env) as child:
        wait_ready(path, child, log)
        body = {"messages": [{"role": "user", "content": "is it?"}], "model": "gate"}
        status, _, answer = unix_request(path, "POST", "/v1/chat/completions", body)
        assert status == 200
        assert json.loads(answer)["choices"][0]["message"]["content"] == "the gate is open"
        models = json.loads(unix_request(path, "GET", "/v1/models")[2])
        assert [each["id"] for each in models["data"]] == ["gate"]
        assert unix_request(path, "GET", "/metrics")[0] == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 0
    assert not path.exists()
    assert log.read_text().splitlines()[-1] == "corral: stopped"


def test_term_while_it_streams(short_tmp: Path, log: Path) -> None:
    """TERM ends it at once even in the middle of an answer that has no end."""
    model = ggufs.write_random(short_tmp / "random.gguf")
    path = short_tmp / "e.sock"
    with running("-m", str(model), "--host", str(path), "-c", "2048", log=log) as child:
        wait_ready(path, child, log)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            body = json.dumps({"prompt": "a", "n_predict": -1, "stream": True, "ignore_eos": True}).encode()
            head = f"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            seen = b""
            while b"data:" not in seen:
                seen += client.recv(4096)
            child.send_signal(signal.SIGTERM)
            assert child.wait(5) == 0


def test_listens_on_loopback(model: Path, short_tmp: Path, log: Path) -> None:
    """On a TCP port that is taken it ends with the code for that, naming the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, last = ended("-m", str(model), "--host", "127.0.0.1", "--port", str(port), log=log)
    assert code == exits.ADDRESS
    assert last == f"corral: cannot listen on 127.0.0.1 port {port}: Address already in use"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--nope"], exits.FLAG, "does not know the flag --nope"),
        (["-m", "MODEL", "--top-k", "x"], exits.FLAG, "--top-k wants a whole number"),
        (["-m", "MODEL", "-ot", "a=NoSuchBuffer"], exits.FLAG, "refuses the value of -ot"),
        ([], exits.FLAG, "no model given"),
        (["-m", "/no/such/model"], exits.MODEL_FILE, "cannot read the model /no/such/model: No such file"),
        (["-m", HOST], exits.MODEL_FILE, "is no GGUF file"),
        (["-m", "TORN", "--host", "SOCKET"], exits.REFUSED, "llama.cpp could not serve"),
        (["-m", "MODEL", "--host", "SOCKET", "--chat-template", "{% broken"], exits.REFUSED, "could not serve"),
        (["-m", "MODEL", "--host", "/no/such/folder/e.sock"], exits.ADDRESS, "directory is missing or not writable"),
        (["-m", "MODEL", "--host", "STALE"], exits.ADDRESS, "is there already"),
        (["-m", "MODEL", "--host", f"/tmp/{'x' * 100}.sock"], exits.ADDRESS, "longer than 103 bytes"),
    ],
)
def test_says_why_it_ends(argv: list[str], code: int, words: str, model: Path, short_tmp: Path, log: Path) -> None:
    """What stops it from serving is its last line, and its exit code tells the kind."""
    torn = short_tmp / "torn.gguf"
    torn.write_bytes(model.read_bytes()[:3000])
    stale = short_tmp / "stale.sock"
    stale.touch()
    places = {"MODEL": model, "TORN": torn, "SOCKET": short_tmp / "e.sock", "STALE": stale}
    found, last = ended(*(str(places.get(each, each)) for each in argv), log=log)
    assert (found, last.startswith("corral: ")) == (code, True)
    assert words in last
    assert found in exits.IN_WORDS


def test_llama_cpp_says_more(model: Path, short_tmp: Path, log: Path) -> None:
    """When llama.cpp refuses a model, its own words stand above the last line."""
    torn = short_tmp / "torn.gguf"
    torn.write_bytes(model.read_bytes()[:3000])
    ended("-m", str(torn), "--host", str(short_tmp / "e.sock"), log=log)
    assert "failed to load model" in log.read_text()


def test_after_a_fork(model: Path, short_tmp: Path, log: Path) -> None:
    """A process that has the library loaded can fork and call `serve`: the child is an engine like any other."""
    path = short_tmp / "e.sock"
    nursery = (
        "import os, sys, xllamacpp\n"
        "from corral.engines.embedded_host import serve\n"
        "pid = os.fork()\n"
        "if pid == 0: serve(sys.argv[1:])\n"
        "print(pid, flush=True)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    argv = [sys.executable, "-c", nursery, "-m", str(model), "--host", str(path), "-c", "256"]
    with log.open("ab") as out, subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=out) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            wait_ready(path, parent, log)
        finally:
            os.kill(child, signal.SIGTERM)
        assert parent.wait(5) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's own")
def test_a_log_that_takes_no_more(model: Path, short_tmp: Path) -> None:
    """It serves although not a line of its log can be written."""
    path = short_tmp / "e.sock"
    argv = ["-m", str(model), "--host", str(path), "-c", "256", "--no-ui"]
    with running(*argv, log=Path("/dev/full")) as child:
        wait_healthy(path, lambda: child.poll() is None)
        body = {"messages": [{"role": "user", "content": "is it?"}]}
        for _ in range(3):
            assert unix_request(path, "POST", "/v1/chat/completions", body)[0] == 200
        child.terminate()
        assert child.wait(20) == 0


def test_imports_little() -> None:
    """Beyond xllamacpp it imports nothing slow: start-up time is paid at every cold request."""
    code = (
        "import sys, xllamacpp; before = set(sys.modules)\n"
        "import corral.engines.embedded_host\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {
        "asyncio",
        "argparse",
        "pydantic",
        "subprocess",
        "importlib.metadata",
        "socket",
        "pathlib",
        "logging.handlers",
    }
    assert not slow & set(done.stdout.split())
