"""HTTP to one Corral server: its address, one request per connection, and streamed answers line by line."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corral.errors import CallerError, CorralError, TooLarge, UnknownModel, Unreachable
from corral.lazy_dataclass import dataclass

DEFAULT_PORT = 8642
CONNECT_S = 3.0
"""How long a connect may take: the server is near, or it is not there."""
MAX_LINE_BYTES = 64 << 20
"""A streamed line longer than this is refused, so that a broken server cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a unix socket (`socket`), or TCP (`host`, `port`, `tls`, `base` path)."""

    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: bool = False
    base: str = ""
    key: str | None = field(default=None, repr=False)  # sent along; never over an open file, which asks for none
    ca: str | None = None  # a PEM file to check its certificate with, beside the system's

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix:{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base}"


class Cord:
    """Pulled from another thread, it ends the request that it was given to: what waits for an answer hears the end."""

    def __init__(self) -> None:
        self.pulled = False
        self._held: socket.socket | None = None

    def pull(self) -> None:
        self.pulled = True
        if self._held is not None:
            _shut(self._held)

    def hold(self, held: socket.socket | None) -> None:
        """`held` is what the request now goes through. It is set before `pulled` is looked at, and `pull` does the
        reverse: one of them sees the other."""
        self._held = held
        if held is not None and self.pulled:
            _shut(held)


def _shut(held: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(held, socket.SHUT_RDWR)  # past TLS, whose own would wait for the other side


def parse_address(text: str) -> Address:
    """`127.0.0.1:8642`, `:8642`, `[::1]:8642`, `https://host/base`, `unix:/path` or an absolute path, as an address.

    The addresses that mean "every interface" to a listener mean loopback to a client. Raises CallerError.
    """
    plain = text.strip()
    if plain.startswith(("unix:", "/")):
        return Address(socket=Path(plain.removeprefix("unix:").removeprefix("//")).expanduser().absolute())
    try:
        parts = urlsplit(plain if "://" in plain else f"http://{plain}")
        port = parts.port
    except ValueError as error:
        raise _bad_address(text) from error
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise _bad_address(text)
    host = parts.hostname or "127.0.0.1"
    if any(each.isspace() for each in host) or not plain:
        raise _bad_address(text)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    tls = parts.scheme == "https"
    if port is None:
        port = DEFAULT_PORT if "://" not in plain else 443 if tls else 80
    return Address(host=host, port=port, tls=tls, base=parts.path.rstrip("/"))


def _bad_address(text: str) -> CallerError:
    from corral.hidden import quoted

    return CallerError(
        f"{quoted(repr(text))} is not the address of a server",
        hint="write HOST:PORT, a URL such as http://127.0.0.1:8642, or unix:/path/to/corral.sock",
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        try:
            self.sock.connect(str(self._path))
        except BaseException:
            self.sock.close()
            raise


class Answer:
    """A server's answer whose status was fine; read it once, by one of its methods."""

    def __init__(self, response: http.client.HTTPResponse, address: Address) -> None:
        self._response = response
        self._address = address

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    def bytes(self) -> bytes:
        try:
            return self._response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _broken(self._address, error) from error

    def json(self) -> Any:
        try:
            return json.loads(self.bytes())
        except ValueError as error:
            raise Unreachable(
                f"what answers at {self._address} is no Corral server",
                hint="check --host and CORRAL_HOST, or start one with: corral serve",
            ) from error

    def lines(self) -> Iterator[str]:
        """Each line as it arrives, without its end. Raises Unreachable when the stream is cut short."""
        rest = b""
        while True:
            try:
                chunk = self._response.read1(65536)
            except (OSError, http.client.HTTPException) as error:
                raise _broken(self._address, error) from error
            if not chunk:
                break
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise TooLarge("the server sends a line without end", hint="check that --host names a Corral server")
            for line in whole:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def events(self) -> Iterator[str]:
        """The `data` of each server-sent event, comments and other fields left out."""
        data: list[str] = []
        for line in self.lines():
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []
        if data:
            yield "\n".join(data)


@contextmanager
def request(
    address: Address,
    method: str,
    target: str,
    body: Any = None,
    *,
    accept: str = "application/json",
    timeout_s: float | None = 15.0,
    cord: Cord | None = None,
) -> Iterator[Answer]:
    """Sends one request and gives its answer; leaving the block closes the connection, whatever is still on its way.

    `timeout_s` bounds each silent wait (None: for ever, as loads take as long as they take), and `cord` ends them.
    Raises Unreachable, or the server's own error as the class of its code.
    """
    connection: http.client.HTTPConnection
    if address.socket is not None:
        connection = _UnixConnection(address.socket)
    elif address.tls:
        connection = _encrypted(address)
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_S)
    headers = {"Accept": accept, "Connection": "close"}
    if address.key is not None and address.socket is None:
        headers["Authorization"] = f"Bearer {address.key}"
    payload = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if payload is not None:
        headers["Content-Type"] = "application/json"
    try:
        try:
            connection.connect()
        except OSError as error:
            raise _nobody(address, error) from error
        assert connection.sock is not None
        connection.sock.settimeout(timeout_s)
        if cord is not None:
            cord.hold(connection.sock)
        try:
            connection.request(method, address.base + target, payload, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _broken(address, error) from error
        if response.status >= 400:
            raise _server_error(response, address)
        try:
            yield Answer(response, address)
        finally:
            response.close()
    finally:
        if cord is not None:
            cord.hold(None)
        connection.close()


def _encrypted(address: Address) -> http.client.HTTPSConnection:
    import ssl  # for the few that speak TLS

    try:
        context = ssl.create_default_context()
        if address.ca is not None:
            context.load_verify_locations(address.ca)
    except OSError as error:
        raise CallerError(
            f"CORRAL_CA cannot be used: {address.ca}: {error.strerror or error}", hint="name the authority's PEM file"
        ) from error
    return http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_S, context=context)


def _nobody(address: Address, error: OSError) -> Unreachable:
    if (refused := getattr(error, "verify_message", None)) is not None:
        return Unreachable(
            f"the certificate of {address} is not trusted: {refused}",
            hint="set CORRAL_CA to the ca.pem that `corral tls show` names on the server",
        )
    why = "nothing answers" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
    return Unreachable(f"no Corral server at {address}: {why}", hint="start one with: corral serve")


def _broken(address: Address, error: Exception) -> Unreachable:
    if isinstance(error, TimeoutError):
        return Unreachable(
            f"the server at {address} takes connections but does not answer",
            hint="see its log, or stop it and start it again: corral serve",
        )
    return Unreachable(
        f"the connection to {address} ended in the middle of an answer",
        hint="see whether the server still runs: corral status",
    )


def _server_error(response: http.client.HTTPResponse, address: Address) -> CorralError:
    raw = b""
    try:
        raw = response.read(1 << 20)
        data = json.loads(raw)
    except (ValueError, OSError, http.client.HTTPException):
        data = None
    if raw and response.headers.get("X-Request-Id") and response.headers.get_content_type() == "text/plain":
        kind = UnknownModel if response.status == 404 else CallerError if response.status < 500 else CorralError
        return kind(raw.decode("utf-8", "replace").strip())  # a route of Docker's, whose errors are plain text
    found = data.get("error") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        return Unreachable(
            f"what answers at {address} is no Corral server (HTTP {response.status})",
            hint="check --host and CORRAL_HOST, or start one with: corral serve",
        )
    error = error_from(found)
    retry = response.headers.get("Retry-After", "")
    if retry.isdigit():
        error.details.setdefault("retry_after_s", int(retry))
    return error


def error_from(found: dict[str, Any]) -> CorralError:
    """The error that a body's `error` object describes, as the class of its code (an unknown one: in `details`)."""
    code, details = str(found.get("code") or ""), found.get("details")
    details = {str(k): v for k, v in details.items()} if isinstance(details, dict) else {}
    kinds = _kinds(CorralError)
    kind = kinds.get(code)
    if kind is None:
        status = found.get("status")
        kind = CallerError if isinstance(status, int) and status < 500 else CorralError
        details["code"] = code
    for taken in ("self", "message", "hint"):
        details.pop(taken, None)
    return kind(
        str(found.get("message") or code or "the server gave no reason"), hint=str(found.get("hint") or ""), **details
    )


def _kinds(root: type[CorralError]) -> dict[str, type[CorralError]]:
    kinds = {root.code: root}
    for each in root.__subclasses__():
        kinds.update({code: kind for code, kind in _kinds(each).items() if code not in kinds})
    return kinds
