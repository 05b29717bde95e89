"""Where Corral may connect to: the rules, and the checks of an address and of a URL against them. Opens nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urljoin

from corral.errors import BadReference, EgressRefused
from corral.hidden import address
from corral.lazy_dataclass import dataclass
from corral.refs_parse import is_loopback, split_authority

MAX_URL = 8192
DEFAULT_PORTS: Mapping[str, int] = MappingProxyType({"https": 443, "http": 80})

_ALIASES = {
    "index.docker.io": "docker.io", "registry-1.docker.io": "docker.io", "registry.hub.docker.com": "docker.io",
    "huggingface.co": "hf.co", "www.huggingface.co": "hf.co", "ollama.com": "registry.ollama.ai",
}  # fmt: skip
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What the one HTTP client may do. Hosts are `host` (any port) or `host:port`; `*.example.com` takes subdomains."""

    allow: tuple[str, ...] | None = None  # registries that may be asked; None = any. Where they redirect to is free
    private_addresses: tuple[str, ...] = ()  # hosts that may be at private, link-local or loopback addresses
    insecure: tuple[str, ...] = ()  # hosts whose certificate is not checked, and which may speak plain HTTP
    ca_file: Path | None = None  # authorities to trust besides the system's
    ca_files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))  # the same for one host
    proxy: str | None = None  # "http://[user:password@]host:port"; None = HTTP(S)_PROXY; "" = none at all
    no_proxy: str | None = None  # None = NO_PROXY
    mirrors: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )  # asked before the host
    realms: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Token servers, by registry, that may see that registry's credentials although they are other hosts."""
    stall_s: float = 30.0  # a connection without a byte for so long counts as broken
    connect_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. `path` has the query and is ready for a request line."""

    scheme: str
    host: str  # lower case; IPv6 without brackets
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host, and the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str, base: Target | None = None) -> Target:
    """`url`, relative to `base` where that is given. Raises EgressRefused for all but clean http and https URLs."""
    if len(url) > MAX_URL:
        raise EgressRefused("a URL is too long", hint=f"{MAX_URL} characters are allowed")
    if any(ord(each) < 0x21 or ord(each) == 0x7F for each in url):
        raise EgressRefused(f"{address(url[:200])!r} has a space or control character", hint="the address is damaged")
    if base is not None and _OTHER_SCHEME.match(url) is None:
        url = urljoin(str(base), url)
    match = _URL.fullmatch(url.partition("#")[0])
    if match is None:
        scheme = _OTHER_SCHEME.match(url)
        what = f"{scheme[1].lower()}: addresses" if scheme else f"{address(url[:200])!r}"
        raise EgressRefused(f"{what} are not fetched from", hint="only https:// and, where allowed, http:// are")
    scheme_name, authority, path = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise EgressRefused("a URL with a user in it is refused", hint="use `corral login`")
    try:
        host, port = split_authority(authority)
    except BadReference as error:
        raise EgressRefused(error.message, hint=error.hint) from error
    if not path.startswith("/"):
        path = "/" + path
    return Target(scheme_name, host, port or DEFAULT_PORTS[scheme_name], quote(path, safe="/?%:@!$&'()*+,;=-._~[]"))


def canonical(host: str) -> str:
    """The one name of a registry that has several."""
    host = host.lower()
    return _ALIASES.get(host, host)


def listed(host: str, port: int | None, entries: Iterable[str]) -> bool:
    """Whether one of `entries` means this host (IPv6 without brackets) and port."""
    for entry in entries:
        try:
            wildcard = entry.startswith("*.")
            name, wanted = split_authority(entry[2:] if wildcard else entry)
        except BadReference:
            continue
        same = host.endswith("." + name) if wildcard else canonical(host) == canonical(name)
        if same and wanted in (None, port):
            return True
    return False


def is_public(address: Address) -> bool:
    """Whether `address` is on the public internet, looking through IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _NAT64 or address in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.teredo is not None:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class Gate:
    """The policy, asked. `named` is the authority that the user named: the registry a request is for."""

    def __init__(self, policy: EgressPolicy) -> None:
        self.policy = policy

    def check_registry(self, named: str) -> None:
        """Raises EgressRefused when the allow-list does not have `named`."""
        if self.policy.allow is None:
            return
        host, port = split_authority(named)
        implied = (*self.policy.mirrors.values(), *self.policy.realms.values())
        if not listed(host, port, (*self.policy.allow, *(entry for entries in implied for entry in entries))):
            raise EgressRefused(
                f"{named} is not among the allowed registries", hint="add it to allow_registries in models.yaml"
            )

    def check_target(self, target: Target, named: str, came_from: Target | None) -> None:
        """Raises EgressRefused for a scheme or a literal address that may not be used."""
        if target.scheme == "http" and not self._may_be_plain(target, named):
            if came_from is not None and came_from.scheme == "https":
                raise EgressRefused(
                    f"{came_from.authority} redirects from https to {target.scheme}://{target.authority}",
                    hint="that would send the data unprotected; it is refused",
                )
            raise EgressRefused(
                f"{target.authority} would be asked over plain http",
                hint=f"use https, or set insecure: true for {target.authority} under registries in models.yaml",
            )
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            return
        self.check_address(address, target, named)

    def check_address(self, address: Address, target: Target, named: str) -> None:
        """Raises EgressRefused when `target` is at an address that its name may not lead to."""
        if is_public(address) or self._may_be_private(target):
            return
        if self._is_named_loopback(target, named) and address.is_loopback:
            return
        where = target.authority if target.host == str(address) else f"{target.authority} at {address}"
        raise EgressRefused(
            f"{where} is not on the public internet",
            hint=f"set private: true for {target.authority} under registries in models.yaml to allow it",
        )

    def is_insecure(self, host: str, port: int) -> bool:
        return listed(host, port, self.policy.insecure)

    def _may_be_plain(self, target: Target, named: str) -> bool:
        return self.is_insecure(target.host, target.port) or self._is_named_loopback(target, named)

    def _may_be_private(self, target: Target) -> bool:
        return listed(target.host, target.port, self.policy.private_addresses)

    @staticmethod
    def _is_named_loopback(target: Target, named: str) -> bool:
        """A user who names `localhost:5000` means it; a server that sends us there is not believed."""
        if not is_loopback(named):
            return False
        host, port = split_authority(named)
        return host == target.host and (port or DEFAULT_PORTS[target.scheme]) == target.port
