"""`make run`: starts Corral with its demo model, asks it one thing, prints the answer as it comes, and stays serving.

Standard library only; it runs in the checkout's environment. Variables: ONCE=1 ends after the answer, PORT=… serves
elsewhere, PROMPT=… asks something else.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "tools" / "demo.yaml"
LOG = ROOT / "build" / "demo.log"
CORRAL = Path(sys.executable).parent / "corral"
HOST = "127.0.0.1"
START_S = 60.0  # the very first start reads a hundred megabytes of engine from the disk
STOP_S = 15.0


class Failed(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def main() -> int:
    once = os.environ.get("ONCE", "") not in ("", "0")
    server: subprocess.Popen[bytes] | None = None
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        port = int(os.environ.get("PORT") or 8642)
        must_be_free(port)
        print(f"$ {shown(CORRAL)} serve --config {shown(CONFIG)}  (on {HOST}:{port})", flush=True)
        server = start(port)
        wait_ready(server, port)
        ask(port, os.environ.get("PROMPT") or "What is Corral?")
        if once:
            return 0
        print(next_commands(port), flush=True)
        return server.wait()
    except KeyboardInterrupt:
        print()
        return 0
    except ValueError as error:
        print(f"error: PORT: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    finally:
        if server is not None:
            stop(server)


def must_be_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise Failed(
                f"port {port} of {HOST} cannot be used: {error}",
                f"another Corral may serve there already (see `{shown(CORRAL)} status`); "
                "or choose a port: make run PORT=8700",
            ) from error


def start(port: int) -> subprocess.Popen[bytes]:
    LOG.parent.mkdir(exist_ok=True)
    command: list[str | Path] = [CORRAL, "serve", "--config", CONFIG, "--listen", f"{HOST}:{port}"]
    with LOG.open("wb") as log:
        # A session of its own: Ctrl-C reaches this script alone, which then ends the server in order.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def wait_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        if server.poll() is not None:
            sys.stderr.write(last_lines())
            raise Failed(f"corral serve ended with exit code {server.returncode}", f"its words are in {shown(LOG)}")
        if time.monotonic() > deadline:
            sys.stderr.write(last_lines())
            raise Failed(f"corral serve was not ready within {START_S:.0f} s", f"its words are in {shown(LOG)}")
        time.sleep(0.02)


def ask(port: int, prompt: str) -> None:
    """Prints the answer token by token, then what it took."""
    print(f"\n> {prompt}")
    began = time.monotonic()
    first: float | None = None
    last = began
    tokens = 0
    rate = 0.0
    for event in events(port, prompt):
        if error := event.get("error"):
            raise Failed(error.get("message", "the stream broke"), error.get("hint") or f"see {shown(LOG)}")
        rate = event.get("timings", {}).get("predicted_per_second", rate)
        for choice in event.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                last = time.monotonic()
                first = first or last
                tokens += 1
                sys.stdout.write(text)
                sys.stdout.flush()
    if first is None:
        raise Failed("the answer was empty", f"see {shown(LOG)}")
    rate = rate or (tokens - 1) / max(last - first, 1e-6)
    print(f"\n\nTTFT {(first - began) * 1000:.0f} ms (starting the engine included), {rate:.0f} tokens/s", flush=True)


def events(port: int, prompt: str) -> Iterator[dict[str, Any]]:
    """The data of each SSE event of one streamed chat request."""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "temperature": 0,
        "max_tokens": 200,
    }
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            error = json.loads(answer.read()).get("error", {})
            raise Failed(error.get("message", f"HTTP {answer.status}"), error.get("hint") or f"see {shown(LOG)}")
        for line in answer:
            data = line.removeprefix(b"data: ").strip()
            if line.startswith(b"data: ") and data != b"[DONE]":
                yield json.loads(data)
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"the connection broke: {error}", f"see {shown(LOG)}") from error
    finally:
        connection.close()


def next_commands(port: int) -> str:
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]})
    corral = shown(CORRAL)
    host = f" --host {HOST}:{port}" if port != 8642 else ""
    return f"""
Corral serves on http://{HOST}:{port} until Ctrl-C. In another terminal, try:

  {corral} run demo{host}
  {corral} ps{host}
  curl http://{HOST}:{port}/v1/chat/completions -d '{body}'
"""


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def last_lines(count: int = 12) -> str:
    return "".join(line + "\n" for line in LOG.read_text(errors="replace").splitlines()[-count:])


def shown(path: Path) -> str:
    """`path` as one would type it in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
