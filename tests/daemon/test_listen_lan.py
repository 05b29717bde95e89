"""`corral listen lan` and changed listeners, on a server that runs."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.access import certificates
from corral.config.paths import Paths
from support.asking import CHAT, ask
from support.forks import Forks
from support.server import Server

CONFIG = """
# What I wrote.
models:
  - name: demo  # mine
    source: builtin:demo
listen: 127.0.0.1:{}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(forks: Forks) -> Run:
    """A command where `server` is."""
    return lambda server, *words: forks.run(words, server.environment)


@pytest.fixture
def lan() -> str:
    """This machine's address in its network."""
    address = certificates.lan_address()
    if address is None:
        pytest.skip("this machine is in no network")
    return address


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One whose addresses each test changes. What it was started with is an address that none of them asks."""
    with Server(module_paths, CONFIG.format(0), listen="") as started:
        yield started


def test_in_one_step_and_at_once(server: Server, lan: str, run: Run) -> None:
    """A key, a certificate, the address in the file, whose other lines stay, and the running server listens; the key
    and the authority are all that a client needs. Again renews, and adds no second address."""
    port, own = free_port(), free_port()
    server.write(CONFIG.format(own))
    server.client.reload()
    done = run(server, "--json", "listen", "lan", "--port", str(port))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["live"] and told["url"] == f"https://{lan}:{port}"
    assert f"0.0.0.0:{port}" in server.client.status().listen
    trusting = ssl.create_default_context(cafile=told["ca"])
    body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    for url in (told["url"], f"https://127.0.0.1:{port}"):
        assert ask(url, CHAT, told["secret"], body, tls=trusting).status == 200
        assert ask(url, CHAT, None, body, tls=trusting).status == 401
    assert ask(f"http://127.0.0.1:{own}", CHAT, None, body).status == 200
    text = server.file.read_text()
    assert text.startswith("\n# What I wrote.\nmodels:\n  - name: demo  # mine\n    source: builtin:demo\nlisten:\n")
    again = json.loads(run(server, "--json", "listen", "lan", "--port", str(port), "--no-key").stdout)
    assert (again["secret"], again["live"], again["ca"]) == (None, True, told["ca"])
    assert server.file.read_text() == text
    assert ask(told["url"], CHAT, told["secret"], body, tls=trusting).status == 200


def test_it_is_shown_with_a_code(paths: Paths, lan: str, run: Run) -> None:
    """Address, key and a code of both, with and without a server; the code is no part of what a program reads."""
    server = Server(paths)
    server.write(server.config)
    done = run(server, "listen", "lan", "--no-tls")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"http://{lan}:8643/v1"
    assert lines[1].startswith("ck_")
    assert "█" in done.stdout and "shown this once" in done.stderr
    assert "corral serve" in done.stderr


def test_a_listener_changes_in_place(server: Server, run: Run) -> None:
    """TLS comes and goes with a reload, on the same port; files that are no good change nothing and are told."""
    port = free_port()
    files = certificates.init(server.paths.config_dir / "mine").files

    def config(tls: str) -> str:
        entry = f"{{address: '127.0.0.1:{port}'{tls}}}"
        return f"listen: {entry}\nmodels: [{{name: demo, source: 'builtin:demo'}}]\n"

    secure = config(f", tls: {{cert: {files.cert}, key: {files.key}}}")
    trusting = ssl.create_default_context(cafile=str(files.ca))
    server.write(config(""))
    server.client.reload()
    assert ask(f"http://127.0.0.1:{port}", "/health").status == 200
    server.write(secure)
    assert server.client.reload().text == "now in effect: listen"
    assert ask(f"https://127.0.0.1:{port}", "/health", tls=trusting).status == 200
    with pytest.raises(OSError):
        ask(f"http://127.0.0.1:{port}", "/health")
    bad = server.paths.config_dir / "bad.pem"
    bad.write_text("nothing")
    server.write(config(f", tls: {{cert: {bad}, key: {files.key}}}"))
    refused = run(server, "reload")
    assert refused.returncode != 0 and "cannot be used" in refused.stderr
    assert ask(f"https://127.0.0.1:{port}", "/health", tls=trusting).status == 200
    server.write(config(""))
    server.client.reload()
    assert ask(f"http://127.0.0.1:{port}", "/health").status == 200


def test_a_file_that_is_too_clever_is_left_to_its_writer(paths: Paths, lan: str, run: Run) -> None:
    """It is said what to add, and nothing is written."""
    server = Server(paths)
    server.write("{models: [{name: demo, source: 'builtin:demo'}], listen: 9000}\n")
    before = Path(server.file).read_text()
    done = run(server, "listen", "lan")
    assert done.returncode != 0
    assert "add under `listen`" in done.stderr
    assert server.file.read_text() == before
