"""Opening connections: names are resolved here, and the very address that was checked is connected to."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from corral.errors import EgressRefused, Unavailable
from corral.lazy_dataclass import dataclass
from corral.registry.connection import Connection
from corral.registry.policy import Gate, Target, listed
from corral.registry.proxies import Proxies, Proxy

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Route:
    """How a target is reached, and what its requests need for it."""

    proxy: Proxy | None
    absolute: bool = False  # the request line has the whole URL, as a proxy for plain HTTP wants it
    extra_headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


class Dialler:
    """Makes connections under a policy. Safe to use from many threads."""

    def __init__(self, gate: Gate, env: Mapping[str, str]) -> None:
        self._gate = gate
        self._proxies = Proxies(gate.policy, env)
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def route(self, target: Target) -> Route:
        proxy = self._proxies.pick(target)
        if proxy is None or target.scheme == "https":
            return Route(proxy)
        secret = {"proxy-authorization": proxy.authorization} if proxy.authorization else _NOTHING
        return Route(proxy, absolute=True, extra_headers=secret)

    def dial(self, target: Target, named: str, route: Route) -> Connection:
        """A connection ready for a request. Raises EgressRefused, Unavailable."""
        policy = self._gate.policy
        if route.proxy is None:
            sock = self._connect(target, named)
        else:
            # The user's own choice of a proxy may be at a private address; the name is resolved by it.
            sock = self._connect_any(_lookup(route.proxy.host, route.proxy.port), "the proxy " + route.proxy.host)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                if route.proxy is not None:
                    _tunnel(sock, target, route.proxy, policy.connect_s)
                sock = self._encrypt(sock, target)
            return Connection(sock, target.authority, policy.stall_s)
        except BaseException:
            sock.close()
            raise

    def _connect(self, target: Target, named: str) -> socket.socket:
        found = _lookup(target.host, target.port)
        good, refusal = [], None
        for family, address in found:
            try:
                self._gate.check_address(ipaddress.ip_address(str(address[0]).partition("%")[0]), target, named)
                good.append((family, address))
            except EgressRefused as error:
                refusal = error
        if not good:
            assert refusal is not None
            raise refusal
        return self._connect_any(good, target.authority)

    def _connect_any(self, addresses: list[_Found], who: str) -> socket.socket:
        each_s = self._gate.policy.connect_s / min(2, len(addresses))
        failure: OSError | None = None
        for family, address in addresses[:6]:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(each_s)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
                continue
            sock.settimeout(self._gate.policy.connect_s)
            return sock
        why = "no answer" if isinstance(failure, TimeoutError) else getattr(failure, "strerror", None) or str(failure)
        raise Unavailable(
            f"cannot connect to {who}: {why}", hint="is the host right, and the network up?", reason="connect"
        ) from failure

    def _encrypt(self, sock: socket.socket, target: Target) -> socket.socket:
        try:
            return self._context(target).wrap_socket(sock, server_hostname=target.host)
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                f"the certificate of {target.authority} is not good: {error.verify_message}",
                hint=f"if it has an authority of its own, set ca: FILE for {target.authority} under registries",
                reason="certificate",
            ) from error
        except OSError as error:
            why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "reason", None) or error
            raise Unavailable(
                f"no TLS with {target.authority}: {why}", hint="does it speak plain http?", reason="tls"
            ) from error

    def _context(self, target: Target) -> ssl.SSLContext:
        policy = self._gate.policy
        file = next((path for host, path in policy.ca_files.items() if listed(target.host, target.port, [host])), None)
        key = (file, self._gate.is_insecure(target.host, target.port))
        with self._lock:
            if (context := self._contexts.get(key)) is None:
                context = self._contexts[key] = _make_context([file, policy.ca_file], unchecked=key[1])
            return context


_Found = tuple[socket.AddressFamily, tuple[str | int, ...]]


def _lookup(host: str, port: int) -> list[_Found]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            f"cannot find {host}: {getattr(error, 'strerror', None) or error}",
            hint="is the name right, and the network up?",
            reason="lookup",
        ) from error
    return [
        (family, tuple(part for part in address if isinstance(part, (str, int))))
        for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]


def _make_context(files: list[Path | None], *, unchecked: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for file in files:
        if file is None:
            continue
        try:
            context.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise EgressRefused(f"cannot use the authorities in {file}: {error}", hint="it is to be PEM") from error
    if unchecked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _tunnel(sock: socket.socket, target: Target, proxy: Proxy, patience_s: float) -> None:
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"host: {host}:{target.port}"]
    if proxy.authorization:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    # The answer to CONNECT has no body of its own, whatever its headers say: it is read like one to HEAD.
    asked = Connection(sock, f"the proxy {proxy.host}", patience_s)
    asked.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    asked.read_head("HEAD", patience_s)
    if not 200 <= asked.status < 300 or asked.surplus:
        raise Unavailable(
            f"the proxy {proxy.host} answers {asked.status} to CONNECT {host}:{target.port}",
            hint="it wants credentials in its address" if asked.status == 407 else "ask whoever runs it",
            reason="proxy",
        )
