"""A small real HTTP server that speaks the control API and streams chat answers, for the command line's tests.

What it does with a chat depends on the model's name: `demo` answers, `endless` goes on until its client leaves,
`cut` breaks off, `ill` sends an error in the middle, `thinker` thinks first, `stuck` answers nothing.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from corral.api import (
    ActionResult,
    Chapter,
    DeviceInfo,
    ErrorInfo,
    EventInfo,
    ModelInfo,
    ReloadResult,
    Status,
    Story,
    StoryLine,
    UnitInfo,
    dump,
)
from support import pictures

ANSWER = ["Corral ", "runs ", "models."]
NAMES = ("demo", "endless", "cut", "ill", "thinker", "stuck", "org/model:7b")


def model_info(name: str, **changes: Any) -> ModelInfo:
    known: dict[str, Any] = {
        "aliases": [f"{name}-alias"], "source": f"/models/{name}.gguf", "engine": "llama.cpp", "runner": "process",
        "state": "ready", "size_bytes": 3 << 20, "context": 1024, "gpu_layers": "auto", "parallel": 2, "port": None,
        "idle_timeout_s": 300.0, "preload": False, "pin": False, "priority": 0, "exclusive": False, "group": None,
        "default": name == "demo",
    }  # fmt: skip
    return ModelInfo(name=name, **(known | changes))


def unit_info(name: str, **changes: Any) -> UnitInfo:
    known: dict[str, Any] = {
        "generation": 1, "state": "ready", "engine": "llama.cpp", "engine_version": "1", "runner": "process",
        "device": "cpu", "endpoint": "unix:/u/1.sock", "pid": 1, "memory_bytes": 34 << 20, "footprint_bytes": 30 << 20,
        "footprint_origin": "estimated", "context": 1024, "slots": 2, "port": 8001, "busy": 0, "queued": 0,
        "since_wall_s": 1.0, "ready_wall_s": 1.0, "load_ms": 18.0, "idle_stop_in_s": 290.0, "restarts": 0,
        "reason": None, "held_bytes": 34 << 20,
    }  # fmt: skip
    return UnitInfo(model=name, unit=f"{name}.1", **(known | changes))


DEVICES = [
    DeviceInfo("cpu", "", "the processor", 64 << 30, 32 << 30, 8 << 30, 24 << 30, 48 << 30, 512 << 20, "cgroup", False),
    DeviceInfo("gpu0", "nvidia", "NVIDIA B", 16 << 30, None, 0, None, None, 512 << 20, "NVML", False, "it was lost"),
]


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    daemon_threads = False

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0


class SmallServer:
    """What the server knows and was asked; tests may change the former while it runs."""

    def __init__(self) -> None:
        self.models = [model_info(name) for name in NAMES]
        self.units = [unit_info("demo")]
        self.events = [EventInfo(i, 1000.0 + i, "unit.state", "demo", "demo.1", f"event {i}") for i in range(1, 4)]
        self.live = pictures.live()
        self.refusal: ErrorInfo | None = None  # what `/control/live` answers instead
        self.logs = [f"line {i}" for i in range(1, 6)]
        self.asked: list[tuple[str, Any]] = []
        self.left = threading.Event()  # a client went away in the middle of a chat
        self.closing = threading.Event()

    def chats(self) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == "/v1/chat/completions"]


@contextmanager
def serving(path: Path) -> Iterator[SmallServer]:
    """A running server on the unix socket `path`."""
    state = SmallServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(str(path), handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
        path.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: SmallServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        state = self.state
        state.asked.append((url.path, query))
        stream = "text/event-stream" in self.headers.get("Accept", "")
        if url.path == "/ready":
            self._json({"status": "ok"})
        elif url.path == "/control/models":
            self._json(state.models)
        elif url.path == "/control/store":
            self._json([])
        elif url.path == "/control/units":
            self._json(state.units)
        elif url.path == "/control/live":
            self._error(state.refusal) if state.refusal is not None else self._json(state.live)
        elif url.path.startswith("/control/story/"):
            name = unquote(url.path.removeprefix("/control/story/"))
            told = [StoryLine(1000.0, 0.0, "asked for by a request", "scheduler.start", 1)]
            self._json(Story(name, [Chapter(1, 1000.0, told)]))
        elif url.path == "/control/devices":
            self._json(DEVICES)
        elif url.path == "/control/status":
            self._json(Status("9.9", 77, 1.0, 61.0, ["127.0.0.1:1"], None, "/state", 1, 1, 0, 0, 50 << 20, 2, {}))
        elif url.path.startswith("/control/logs/"):
            name = unquote(url.path.removeprefix("/control/logs/"))
            if self._known(name):
                lines = state.logs[-int(query["lines"]) :]
                self._follow(lines, "later line") if stream else self._text("".join(f"{x}\n" for x in lines))
        elif url.path == "/control/events":
            found = [e for e in state.events if e.seq > int(query["since"])]
            later = EventInfo(4, 1004.0, "unit.state", "demo", None, "event 4")
            self._follow([json.dumps(dump(e)) for e in found], json.dumps(dump(later))) if stream else self._json(found)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.asked.append((self.path, body))
        if self.path == "/control/reload":
            self._json(ReloadResult("/m.yaml", ["new"], [], [], ["listen"], "Read /m.yaml again."))
        elif self.path == "/v1/chat/completions":
            self._chat(body)
        elif self._known(body["model"]):
            name, verb = body["model"], self.path.rsplit("/", 1)[1]
            if name == "ill":
                details = {"log_tail": ["loading", "out of memory"]}
                self._error(ErrorInfo("start_failed", "ill ended while loading", "see: corral logs ill", 502, details))
                return
            self._json(ActionResult(name, "ready", True, 12.0, f"{verb}: {name} done"))

    def _known(self, name: str) -> bool:
        if any(name in (m.name, *m.aliases) for m in self.state.models):
            return True
        self._error(ErrorInfo("model_not_found", f"no model is called {name!r}", "did you mean demo?", 404))
        return False

    def _chat(self, body: dict[str, Any]) -> None:
        name = body["model"]
        if not self._known(name):
            return
        if name == "stuck":
            self._until_gone()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-corral-load-ms", "18.5")
        self.end_headers()
        if name == "thinker":
            self._delta(reasoning_content="Hm, a ")
            self._delta(reasoning_content="question.")
        if name == "endless":
            try:
                while not self.state.closing.wait(0.005):
                    self._delta(content="again \x1b[31m")
            except OSError:
                self.state.left.set()
            return
        for word in ANSWER:
            self._delta(content=word)
            if name == "ill":
                self._event({"error": {"message": "the engine died", "code": "engine_gone", "hint": "corral logs ill"}})
                self._chunk(b"")
                return
            if name == "cut":
                return
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        timings = {"prompt_n": 5, "prompt_ms": 10.0, "predicted_n": 3, "predicted_ms": 30.0}
        self._event({"choices": [{"delta": {}, "finish_reason": "length" if body.get("max_tokens") == 3 else "stop"}]})
        self._event({"choices": [], "usage": usage, "timings": timings})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _delta(self, **delta: str) -> None:
        self._event({"choices": [{"delta": delta, "finish_reason": None}]})

    def _event(self, data: Any) -> None:
        self._chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _follow(self, first: list[str], later: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in first:
            self._chunk(f": still here\n\nid: 1\ndata: {data}\n\n".encode())
        self._chunk(f"data: {later}\n\n".encode())
        self._until_gone()

    def _until_gone(self) -> None:
        self.connection.settimeout(0.02)
        while not self.state.closing.is_set():
            try:
                if not self.connection.recv(1):
                    self.state.left.set()
                    break
            except TimeoutError:
                continue
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
        if not data:
            self.close_connection = True

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(dump(value)).encode(), "application/json", status)

    def _text(self, text: str) -> None:
        self._send(text.encode(), "text/plain", 200)

    def _error(self, info: ErrorInfo) -> None:
        self._json({"error": dump(info)}, info.status)

    def _send(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def until(condition: Any, deadline_s: float = 10.0) -> None:
    """Waits until `condition()` is true; fails after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)
