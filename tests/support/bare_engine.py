"""A bare engine for tests: xllamacpp in a child process of its own, on a unix socket, without Corral around it."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHILD = """
import json, sys, xllamacpp
settings = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = settings.pop("model_path")
params.hostnames, params.port = [settings.pop("socket")], 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
KINDS = {"pooling_type": "llama_pooling_type", "flash_attn_type": "llama_flash_attn_type",
         "cache_type_k": "ggml_type", "cache_type_v": "ggml_type", "load_mode": "llama_load_mode"}
for name, value in settings.items():
    if name == "lora":
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(value, 1.0)]
    elif name == "mmproj":
        params.mmproj.path = value
    elif name == "draft":
        params.speculative.draft.mparams.path = value
    else:
        setattr(params, name, getattr(getattr(xllamacpp, KINDS[name]), value) if name in KINDS else value)
server = xllamacpp.Server(params)
print("ready", flush=True)
sys.stdin.read()
import os
sys.stdout.flush(); os._exit(0)
"""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class BareEngine:
    """A running engine: `post` asks it, `log` is everything it has printed so far."""

    socket: Path
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The decoded answer of POST `path`; anything but 200 is an AssertionError with the engine's words."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        assert response.status == 200, f"{path}: {response.status} {text}"
        answer = json.loads(text)
        assert isinstance(answer, dict)
        return answer

    def chat(self, *messages: str | tuple[str, str], **fields: Any) -> str:
        """The answer to `messages` (plain ones alternate, the user's first) at temperature 0."""
        said = [
            {"role": m[0], "content": m[1]}
            if isinstance(m, tuple)
            else {"role": "user" if i % 2 == 0 else "assistant", "content": m}
            for i, m in enumerate(messages)
        ]
        answer = self.post("/v1/chat/completions", {"messages": said, "temperature": 0, "max_tokens": 400} | fields)
        content = answer["choices"][0]["message"]["content"]
        assert isinstance(content, str)
        return content


@contextmanager
def bare_engine(model: Path, **settings: Any) -> Iterator[BareEngine]:
    """A ready engine with `model`; `settings` are xllamacpp's parameters. It is gone when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder, "log")
        where = Path(folder, "e.sock")  # llama.cpp tells a socket from a host by this suffix
        defaults = {"n_ctx": 1024, "verbosity": 4, "warmup": False}
        wanted = defaults | settings | {"model_path": str(model), "socket": str(where)}
        with spoken.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, json.dumps(wanted)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            engine = BareEngine(where, spoken)
            _await_ready(child, engine, deadline=time.monotonic() + 60)
            yield engine
        finally:
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()


def _await_ready(child: subprocess.Popen[bytes], engine: BareEngine, *, deadline: float) -> None:
    assert child.stdout is not None
    readable, _, _ = select.select([child.stdout], [], [], deadline - time.monotonic())
    line = child.stdout.readline() if readable else b""
    assert line == b"ready\n", f"the engine did not start:\n{engine.log[-3000:]}"
