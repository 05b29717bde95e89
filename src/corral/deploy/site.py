"""`Site`: where a server is to be reached by the programs that files are written for. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Heard:
    """One address that a server listens on."""

    host: str
    port: int
    tls: bool = False
    own_ca: bool = False  # its certificate is signed by the authority of `corral tls init`
    key: bool = False  # who comes there needs one
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One address of a server, as a client has to speak to it."""

    host: str
    port: int
    tls: bool = False
    ca: str | None = None  # the authority's certificate (PEM) where the system's own do not know it
    key: bool = False
    metrics: str = "/metrics"  # the path of its metrics

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


def nearest(heard: Iterable[Heard]) -> Heard:
    """The address that a program on this machine has it easiest with: loopback before others, plain before TLS.

    The addresses that mean "every interface" come back as loopback's. Raises ConfigError when there is none: a unix
    socket is no address for what reads metrics.
    """
    usable = [_connectable(each) for each in heard]
    if not usable:
        raise ConfigError(
            "the server listens on no TCP address, and Prometheus speaks nothing else",
            hint="add one to `listen` in models.yaml, such as 127.0.0.1:8642, or name one with --address",
        )
    return min(usable, key=lambda each: (not is_loopback(each.host), each.key, each.tls, each.dialect is not None))


def _connectable(heard: Heard) -> Heard:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(heard.host, heard.host)
    return Heard(host, heard.port, heard.tls, heard.own_ca, heard.key, heard.dialect)


def metrics_path(heard: Heard) -> str:
    """Where its metrics are: a dialect may have a meaning of its own for `/metrics`."""
    return "/metrics" if heard.dialect in (None, "openai") else "/control/metrics"


def is_loopback(host: str) -> bool:
    """Whether only programs on the same machine can use it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
