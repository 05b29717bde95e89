"""The tests' detector: its folder, pictures for it, and its program as a child."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from corral.config.paths import find_paths
from corral.engines.detector import program
from support.server import until
from support.shapes import Scene, draw

TINY = Path(__file__).parents[1] / "vision" / "tiny"
"""A trained RT-DETRv2 that finds the shapes of `support.shapes`; tools/train_detector made it."""

EXPORTERS = find_paths().cache_dir / "tests" / "engines"
"""Where `make vision` installed what exports; looked up before HOME is hidden from the tests."""

READY_WITHIN_S = 60.0


def scene(seed: int = 1, width: int = 160, height: int = 120) -> Scene:
    return draw((1 << 41) + seed, width, height)


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """How far two boxes are the same: 1 = wholly."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, wide) * max(0.0, high)
    sizes = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (sizes - both)


def form(fields: Sequence[tuple[str, str | bytes]], boundary: str = "corral-test") -> tuple[str, bytes]:
    """Content type and body of a form; bytes are files."""
    parts = []
    for name, value in fields:
        file = isinstance(value, bytes)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"' + ('; filename="x"' if file else "")
        parts.append(head.encode() + b"\r\n\r\n" + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


@dataclass
class Reply:
    status: int
    kind: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Program:
    """A running detector."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("detector", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.socket))
        return connection

    def ask(self, body: bytes, kind: str, target: str = "/detect", method: str = "POST", **headers: str) -> Reply:
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, {"content-type": kind, **named})
            response = connection.getresponse()
            return Reply(response.status, response.headers.get("content-type", ""), response.read())
        finally:
            connection.close()

    def ask_json(self, **body: Any) -> Reply:
        return self.ask(json.dumps(body).encode(), "application/json")

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def spawn(folder: Path, socket_path: Path, *flags: str, model: Path | None = None) -> subprocess.Popen[bytes]:
    """The program, with its words in a file beside the socket."""
    argv = [sys.executable, "-I", str(program()), "--model", str(model or folder / "model.onnx")]
    argv += ["--folder", str(folder), "--host", str(socket_path), "--alias", "tiny", "--threads", "1", *flags]
    with socket_path.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
        )


@contextmanager
def running(folder: Path, place: Path, *flags: str) -> Iterator[Program]:
    """The program, ready; ended on leaving."""
    path = place / "d.sock"
    found = Program(spawn(folder, path, *flags), path, path.with_suffix(".log"))
    try:
        until(lambda: b"model loaded" in found.log.read_bytes() or found.process.poll(), "the detector", READY_WITHIN_S)
        assert found.process.poll() is None, found.log.read_text()
        yield found
    finally:
        found.end()
