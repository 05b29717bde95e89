"""The one HTTP client: whatever Corral fetches from, or sends to, other machines goes through `Egress.request`."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Self

from corral import __version__
from corral.errors import EgressRefused, ManifestError, Unavailable
from corral.hidden import address
from corral.refs_parse import is_loopback
from corral.registry.connection import Connection, Headers
from corral.registry.dial import Dialler
from corral.registry.policy import EgressPolicy, Gate, Target, parse_url
from corral.registry.pool import Pool

__all__ = ["Egress", "EgressPolicy", "Headers", "Response"]

MAX_READ_BYTES = 4 << 20
ANSWER_TO_BODY_S = 300.0
"""A registry hashes what was sent to it before it answers."""

_REDIRECTS = (301, 302, 303, 307, 308)
_SECRETS = ("authorization", "cookie", "proxy-authorization")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PLAIN_TO_TLS = re.compile(rb"HTTPS? (?:server|port)", re.IGNORECASE)


class Response:
    """An answer. Read it to its end or close it; `with` does. Its connection goes back to the pool at the end.

    One thread reads; `abort` may be called by any other and makes the reader fail with Unavailable.
    """

    def __init__(self, connection: Connection, pool: Pool, key: object, url: Target) -> None:
        self.status = connection.status
        self.headers = connection.head
        self.url = str(url)
        self._connection: Connection | None = connection
        self._pool = pool
        self._key = key
        self._settle()

    @property
    def length(self) -> int | None:
        """The body's size in bytes, when the server says it."""
        text = self.headers.get("content-length")
        return int(text) if text.isdigit() else None

    def readinto(self, view: memoryview) -> int:
        """Fills some of `view`, blocking until at least one byte is there; 0 at the end. Raises Unavailable."""
        if self._connection is None:
            return 0
        try:
            count = self._connection.readinto(view)
        except BaseException:
            self.close()
            raise
        if not count or self._connection.finished:
            self._settle()
        return count

    def read(self, limit: int = MAX_READ_BYTES) -> bytes:
        """The whole body. Raises ManifestError when it has more than `limit` bytes, Unavailable."""
        if (self.length or 0) > limit and self._connection is not None:
            self.close()
            raise _too_long(self.url, limit)
        data, buffer = bytearray(), memoryview(bytearray(64 << 10))
        while count := self.readinto(buffer):
            data += buffer[:count]
            if len(data) > limit:
                self.close()
                raise _too_long(self.url, limit)
        return bytes(data)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.abort()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _settle(self) -> None:
        if self._connection is not None and self._connection.finished:
            connection, self._connection = self._connection, None
            self._pool.put(self._key, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Egress:
    """Requests under one policy, over kept connections. Safe to use from many threads; all of it blocks."""

    def __init__(self, policy: EgressPolicy | None = None, env: Mapping[str, str] | None = None) -> None:
        self.policy = policy or EgressPolicy()
        self.gate = Gate(self.policy)
        self._dialler = Dialler(self.gate, os.environ if env is None else env)
        self._pool = Pool()
        self._bases: dict[str, str] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | BinaryIO | None = None,
        length: int | None = None,
        sent: Callable[[int], None] | None = None,
        redirects: int = 5,
        auth_host: str | None = None,
    ) -> Response:
        """The answer, whatever its status, after up to `redirects` redirects of a GET or HEAD.

        `auth_host` is the registry that the request is for, as the user named it; without it, the URL counts as named
        by the user. **Give it with every URL that a server sent**: the allow-list and the permission to reach
        localhost are about it. `Authorization` and cookies do not follow a redirect to another origin. A file as body
        is sent from where it stands, `length` bytes of it or all; `sent` is told each piece.

        Raises EgressRefused, Unavailable.
        """
        target = parse_url(url)
        named = auth_host or target.authority
        self.gate.check_registry(named)
        came_from: Target | None = None
        head = {name.lower(): value for name, value in headers.items()}
        for hop in range(redirects + 1):
            self.gate.check_target(target, named, came_from)
            response = self._exchange(method, target, named, head, body, length, sent)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location or method not in ("GET", "HEAD") or redirects == 0:
                return response
            response.close()
            if hop == redirects:
                break
            came_from, target = target, parse_url(location, target)
            if came_from.origin != target.origin:
                head = {name: value for name, value in head.items() if name not in _SECRETS}
        raise Unavailable(
            f"{named} redirects more than {redirects} times", hint="the server is misconfigured", reason="redirects"
        )

    def base_url(self, host: str) -> str:
        """`https://HOST` for a registry's host; for localhost and insecure ones what they turn out to speak.

        Raises EgressRefused, Unavailable.
        """
        if (known := self._bases.get(host)) is not None:
            return known
        api_host = "registry-1.docker.io" if host == "docker.io" else host
        target = parse_url(f"https://{api_host}")
        schemes = ["https"]
        if is_loopback(host):
            schemes = ["http", "https"]
        elif self.gate.is_insecure(target.host, target.port) or host in self.policy.insecure:
            schemes = ["https", "http"]
        found = f"{schemes[0]}://{api_host}" if len(schemes) == 1 else self._probe(host, api_host, schemes)
        with self._lock:
            return self._bases.setdefault(host, found)

    def close(self) -> None:
        """Closes the kept connections; those in use close when their answers are done with."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _probe(self, host: str, api_host: str, schemes: list[str]) -> str:
        failure: Unavailable | None = None
        for scheme in schemes:
            base = f"{scheme}://{api_host}"
            try:
                with self.request("GET", f"{base}/v2/", redirects=0, auth_host=host) as answer:
                    if scheme == "http" and answer.status == 400 and _PLAIN_TO_TLS.search(answer.read()):
                        continue
            except Unavailable as error:
                failure = failure or error
                continue
            return base
        raise failure or Unavailable(f"{host} speaks neither http nor https", hint="is it a registry?")

    def _exchange(
        self,
        method: str,
        target: Target,
        named: str,
        headers: Mapping[str, str],
        body: bytes | BinaryIO | None,
        length: int | None,
        sent: Callable[[int], None] | None,
    ) -> Response:
        route = self._dialler.route(target)
        file = None if body is None or isinstance(body, bytes) else body
        start = file.tell() if file is not None else 0
        if file is not None and length is None:
            length = file.seek(0, os.SEEK_END) - start
            file.seek(start)
        size = length if file is not None else len(body) if isinstance(body, bytes) else None
        head = _head(method, target, headers, size, route.extra_headers, absolute=route.absolute)
        # Where private addresses may be reached belongs to the key: a connection is not shared past the check.
        key = (target.origin, route.proxy, named if is_loopback(named) else "")
        answer_s = self.policy.stall_s if body is None else max(ANSWER_TO_BODY_S, self.policy.stall_s)
        while True:
            connection = self._pool.take(key) or self._dialler.dial(target, named, route)
            try:
                connection.send(head, body if isinstance(body, bytes) else None)
                if file is not None:
                    connection.send_file(file, length or 0, sent)
                connection.read_head(method, answer_s)
            except Unavailable as error:
                connection.close()
                # An idle connection may have been closed just now. Whether this request was heard is not known then, so
                # one that must not be heard twice is left to the caller.
                idle = connection.used > 1 and not connection.answered and error.details.get("reason") != "stall"
                if idle and method not in ("POST", "PATCH"):
                    if file is not None:
                        file.seek(start)
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            response = Response(connection, self._pool, key, target)
            encoding = response.headers.get("content-encoding", "identity").lower()
            if encoding not in ("identity", "") and method != "HEAD" and response.status < 300:
                response.close()
                raise Unavailable(
                    f"{target.authority} compresses ({encoding[:20]}) what it was asked to send as it is",
                    hint="the server or a proxy before it is misconfigured",
                    reason="encoding",
                )
            return response


def _head(
    method: str,
    target: Target,
    headers: Mapping[str, str],
    size: int | None,
    extra: Mapping[str, str],
    *,
    absolute: bool,
) -> bytes:
    if method not in _METHODS:
        raise ValueError(f"{method} is no method")
    all_headers = {
        "host": target.authority,
        "user-agent": f"corral/{__version__}",
        "accept": "*/*",
        "accept-encoding": "identity",
        **headers,
        **extra,
    }
    if size is not None or method in ("POST", "PUT", "PATCH"):
        all_headers["content-length"] = str(size or 0)
    lines = [f"{method} {target if absolute else target.path} HTTP/1.1"]
    for name, value in all_headers.items():
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise EgressRefused(f"the header {name[:40]!r} has characters that no header may have", hint="check it")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _too_long(url: str, limit: int) -> ManifestError:
    return ManifestError(f"the answer of {address(url[:200])} is too long", hint=f"{limit} bytes are allowed")
