"""ggml's RPC servers on this machine: each is a device that a `llama-server` takes for a GPU."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 30


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def rpc_server(program: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An RPC server beside the llama-server `program`, listening on 127.0.0.1:`port`; it may be killed inside."""
    argv = [str(program.resolve().with_name("ggml-rpc-server")), "-H", "127.0.0.1", "-p", str(port), "-d", "CPU"]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the RPC server does not listen"
            time.sleep(0.01)
        yield child
    finally:
        child.kill()
        child.wait()


def models_yaml(program: Path, port: int, source: Path) -> str:
    """One model, `m`, of the llama-server `program`, whose GPU is the RPC server on `port`."""
    return f"""
        models:
          - name: m
            source: {source}
            executable: {program}
            context: 512
            args: [--rpc, "127.0.0.1:{port}", --no-warmup]
    """
