"""Podman's own API over its unix socket as what drives containers: no child processes, and no program needed.

Source: Podman's libpod API, version 4.0.0 and newer.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from corral.errors import EngineMissing, StartFailed
from corral.runners.containers.body import create_body
from corral.runners.containers.engine import ASK_WITHIN_S
from corral.runners.containers.host import Host, Image, Seen, image_of, podman_host, seen_of
from corral.runners.containers.local import has_init, has_subuids, owner
from corral.runners.containers.spec import ContainerSpec

_PREFIX = "/v4.0.0/libpod"
_HEAD_BYTES = 8  # of a frame of a container's output: the stream, three zeros, a length


class Api:
    """One socket. Each call is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._host: Host | None = None
        self._asking = threading.Lock()

    @property
    def name(self) -> str:
        return f"podman's API at {self._path}"

    @property
    def keeps_logs(self) -> bool:
        return False

    def answers(self) -> bool:
        """Whether somebody listens there now."""
        try:
            with self._asked("GET", "/_ping", within_s=2.0) as answer:
                return answer.status == 200
        except (EngineMissing, StartFailed):
            return False

    def host(self) -> Host:
        with self._asking:
            if self._host is None:
                told = self._json("GET", "/info")
                self._host = podman_host(told, subuids=has_subuids(), init=has_init(), owner=owner())
            return self._host

    def image(self, reference: str) -> Image | None:
        with self._asked("GET", f"/images/{quote(reference, safe='')}/json") as answer:
            if answer.status == 404:
                return None
            return image_of(self._read(answer, "image inspect"))

    def run(self, spec: ContainerSpec, log: Path) -> None:
        self._create(spec)
        try:
            self._done("POST", f"/containers/{spec.name}/start", "start")
        except BaseException:
            with suppress(EngineMissing, StartFailed):
                self.remove(spec.name)
            raise

    def ask(self, spec: ContainerSpec, within_s: float = ASK_WITHIN_S) -> tuple[int, str]:
        self._create(spec)
        try:
            self._done("POST", f"/containers/{spec.name}/start", "start")
            code = self.wait(spec.name, within_s)
            if code is None:
                raise StartFailed(f"{spec.image} said nothing within {within_s:.0f} s", hint="try another image")
            with self._asked("GET", f"/containers/{spec.name}/logs?stdout=true&stderr=true") as answer:
                return code, b"".join(_frames(answer)).decode(errors="replace")
        finally:
            self.remove(spec.name)

    def inspect(self, name: str) -> Seen | None:
        with self._asked("GET", f"/containers/{name}/json") as answer:
            return None if answer.status == 404 else seen_of(self._read(answer, "inspect"))

    def ours(self, label: str) -> list[str]:
        filters = json.dumps({"label": [label]})
        with self._asked("GET", f"/containers/json?{urlencode({'all': 'true', 'filters': filters})}") as answer:
            found = self._read_any(answer, "list")
        return [str(names[0]).lstrip("/") for each in found or () if (names := each.get("Names"))]

    def wait(self, name: str, within_s: float) -> int | None:
        try:
            with self._asked(
                "POST", f"/containers/{name}/wait?condition=stopped&condition=exited", within_s=within_s
            ) as answer:
                if answer.status != 200:
                    return None
                code = int(answer.read().strip() or b"-1")
                return code if code >= 0 else None
        except (StartFailed, ValueError):
            return None

    def kill(self, name: str, signal: str) -> None:
        with self._asked("POST", f"/containers/{name}/kill?signal={quote(signal)}") as answer:
            if answer.status not in (204, 404, 409):
                self._read(answer, "kill")

    def remove(self, name: str) -> None:
        with self._asked("DELETE", f"/containers/{name}?force=true&v=true&timeout=0") as answer:
            if answer.status not in (200, 204, 404):
                self._read(answer, "remove")

    def follow(self, name: str, log: Path, since: str) -> Callable[[float], None]:
        asked = {"stdout": "true", "stderr": "true", "follow": "true", **({"since": since} if since else {})}
        connection = self._connection(None)
        ended = threading.Event()

        def work() -> None:
            with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
                connection.request("GET", f"{_PREFIX}/containers/{name}/logs?{urlencode(asked)}")
                answer = connection.getresponse()
                output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    for piece in _frames(answer):
                        if ended.is_set():
                            break
                        os.write(output, piece)
                finally:
                    os.close(output)

        thread = threading.Thread(target=work, name=f"log of {name}", daemon=True)
        thread.start()

        def end(within_s: float) -> None:
            thread.join(within_s)
            ended.set()
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)
            connection.close()

        return end

    def pull(self, reference: str, say: Callable[[str], None]) -> None:
        with self._asked("POST", f"/images/pull?{urlencode({'reference': reference})}", within_s=None) as answer:
            if answer.status != 200:
                self._read(answer, "pull")
            for line in answer:
                told = json.loads(line)
                if told.get("error"):
                    raise self._refused("pull", str(told["error"]))
                if text := str(told.get("stream") or told.get("id") or "").strip():
                    say(text)

    def _create(self, spec: ContainerSpec) -> None:
        self._json("POST", "/containers/create", create_body(spec))

    def _connection(self, within_s: float | None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("podman", timeout=within_s)
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(within_s)
        try:
            found.connect(str(self._path))
        except OSError as exc:
            found.close()
            raise EngineMissing(
                f"Podman's API does not answer at {self._path}: {exc.strerror}",
                hint="systemctl --user start podman.socket   (or unset CONTAINER_HOST)",
            ) from exc
        connection.sock = found
        return connection

    @contextmanager
    def _asked(
        self, method: str, target: str, body: Any = None, within_s: float | None = ASK_WITHIN_S
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(within_s)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, _PREFIX + target, sent, {"Content-Type": "application/json"} if sent else {})
            with connection.getresponse() as answer:
                yield answer
        except (OSError, http.client.HTTPException) as exc:
            raise self._refused(target.partition("?")[0], f"{exc}" or type(exc).__name__) from exc
        finally:
            connection.close()

    def _json(self, method: str, target: str, body: Any = None) -> dict[str, Any]:
        with self._asked(method, target, body) as answer:
            return self._read(answer, target.strip("/").replace("/", " "))

    def _done(self, method: str, target: str, what: str) -> None:
        with self._asked(method, target) as answer:
            if answer.status not in (200, 204, 304):
                self._read(answer, what)

    def _read(self, answer: http.client.HTTPResponse, what: str) -> dict[str, Any]:
        told = self._read_any(answer, what)
        return told if isinstance(told, dict) else {}

    def _read_any(self, answer: http.client.HTTPResponse, what: str) -> Any:
        try:
            told = json.loads(answer.read() or b"{}")
        except ValueError:
            told = {}
        if answer.status >= 400:
            said = told.get("cause") or told.get("message") if isinstance(told, dict) else ""
            raise self._refused(what, str(told.get("message") or said or f"status {answer.status}"))
        return told

    def _refused(self, what: str, why: str) -> StartFailed:
        return StartFailed(f"podman {what} failed: {why}", hint="`corral doctor` looks at podman's set-up")


def _frames(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The output itself, both streams in one, out of the frames that carry it."""
    while len(head := _exactly(answer, _HEAD_BYTES)) == _HEAD_BYTES:
        size = int.from_bytes(head[4:], "big")
        piece = _exactly(answer, size)
        yield piece
        if len(piece) < size:
            return


def _exactly(answer: http.client.HTTPResponse, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := answer.read(size - len(found))):
        found += piece
    return found
