"""Which proxy a connection goes through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY or by the policy."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from corral.errors import BadReference, EgressRefused
from corral.lazy_dataclass import dataclass
from corral.refs_parse import is_loopback, split_authority
from corral.registry.policy import EgressPolicy, Target


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of Proxy-Authorization, or ""."""

    host: str
    port: int
    authorization: str = ""


class Proxies:
    """The choice for each target, made once from the policy and the environment."""

    def __init__(self, policy: EgressPolicy, env: Mapping[str, str]) -> None:
        def variable(name: str) -> str:
            return env.get(name.lower()) or env.get(name) or ""

        if policy.proxy is not None:
            plain = tls = policy.proxy
        else:
            every = variable("ALL_PROXY")
            # HTTP_PROXY in upper case can be set by a client of a CGI program, through its Proxy header.
            plain = env.get("http_proxy") or ("" if "REQUEST_METHOD" in env else env.get("HTTP_PROXY", "")) or every
            tls = variable("HTTPS_PROXY") or every
        self._by_scheme = {"http": plain, "https": tls}
        without = policy.no_proxy if policy.no_proxy is not None else variable("NO_PROXY")
        self._without = [entry.strip().lower() for entry in without.split(",") if entry.strip()]

    def pick(self, target: Target) -> Proxy | None:
        """The proxy for `target`, or None: connect directly. Raises EgressRefused for one of an unknown kind."""
        text = self._by_scheme[target.scheme]
        if not text or is_loopback(target.authority) or self._is_without(target):
            return None
        return _parse(text)

    def _is_without(self, target: Target) -> bool:
        for entry in self._without:
            if entry == "*":
                return True
            try:
                if ipaddress.ip_address(target.host) in ipaddress.ip_network(entry, strict=False):
                    return True
                continue
            except (ValueError, TypeError):
                pass
            try:
                host, port = split_authority(entry.removeprefix("*").removeprefix("."))
            except BadReference:
                continue
            if port in (None, target.port) and (target.host == host or target.host.endswith("." + host)):
                return True
        return False


def _parse(text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("http://")
    if parts.scheme != "http" or not host:
        raise EgressRefused(
            f"the proxy is no http:// address but {parts.scheme}://{host or ''}",
            hint="set HTTP_PROXY and HTTPS_PROXY to http://host:port",
        )
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    return Proxy(host, port or 80, authorization)
