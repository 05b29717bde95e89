"""Small real HTTP servers in threads: starting them, and answering with a content or a range of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections, writes each answer at once, logs nothing. `state` is what `running` was given."""

    protocol_version = "HTTP/1.1"
    timeout = 2
    wbufsize = 1 << 16  # a head and a body in two packets would wait for each other
    disable_nagle_algorithm = True
    state: Any

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def head(self) -> dict[str, str]:
        """The request's headers, with names in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def answer_content(self, content: bytes, *, ranges: bool = True, etag: str = "") -> None:
        """206 for a `Range: bytes=A-[B]` that can be, 416 for another, 200 without one or with `ranges=False`."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranges else None
        known = {"ETag": etag} if etag else {}
        if asked is None:
            self.answer(200, content, known)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if first > last:
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            self.answer(206, content[first : last + 1], known | where)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away is a part of many tests


@contextmanager
def running(handler: type[QuietHandler], state: Any) -> Iterator[str]:
    """A server on a free port of this machine; its base URL."""
    server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
