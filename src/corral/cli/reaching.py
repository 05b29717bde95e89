"""How a container reaches the server of this machine: which of its addresses, under which name."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from corral.errors import ConfigError

if TYPE_CHECKING:
    from corral.connection import Address

BRIDGES = ("docker0", "podman0", "cni-podman0")
"""The bridges of Docker and Podman; the host has an address on each, which every container can reach."""

_EVERYWHERE = ("0.0.0.0", "::")
_GET_ADDRESS = 0x8915  # Linux's SIOCGIFADDR


def endpoint(listen: Sequence[str], bridges: Sequence[str], platform: str) -> str | None:
    """`host:port` for a container, of the addresses that the server listens on; None where it can reach none.

    On macOS and Windows containers run in a machine of their own, that calls the host's loopback by a name.
    """
    pairs = [(host.strip("[]"), port) for host, _, port in (each.rpartition(":") for each in listen if _is_tcp(each))]
    open_ones = [(host, port) for host, port in pairs if not _is_loopback(host)]
    if platform != "linux":
        found = open_ones or pairs
        return f"host.docker.internal:{found[0][1]}" if found else None
    for host, port in sorted(open_ones, key=lambda each: each[0] not in bridges):
        name = (bridges[0] if bridges else _own_address()) if host in _EVERYWHERE else host
        if name is not None:
            return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    return None


def _is_tcp(listen: str) -> bool:
    return not listen.startswith("unix:")


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def bridge_addresses() -> list[str]:
    """This machine's addresses on the bridges there are; empty where that is not Linux."""
    found = []
    with suppress(ImportError):
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for name in BRIDGES:
                with suppress(OSError):
                    answer = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, struct.pack("256s", name.encode()))
                    found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _own_address() -> str | None:
    """This machine's address in its network; nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


def base_url(address: Address, listen: Sequence[str], wanted: str | None = None) -> str:
    """`http://host:port` of the server for containers; `wanted` is what the user says it is.

    Raises ConfigError when the server listens where no container can reach it.
    """
    from corral.connection import parse_address

    if wanted:
        return str(parse_address(wanted))
    if address.socket is None and not _is_loopback(address.host):
        return str(address)  # a server elsewhere is at the same address for everybody
    found = endpoint(listen, bridge_addresses(), sys.platform)
    if found is None:
        port = next((each.rpartition(":")[2] for each in listen if _is_tcp(each)), "8642")
        raise ConfigError(
            "no container can reach the server: it listens on this machine's loopback only",
            hint=f"add a bridge's address to `listen`, such as 172.17.0.1:{port}, see docs/connect.md; or name the "
            "server's address with the option endpoint",
        )
    return f"{_scheme(found)}://{found}"


def _scheme(authority: str) -> str:
    """https where plain HTTP is not understood. A name that only containers know counts as plain."""
    from corral.connection import Address, request
    from corral.errors import CorralError

    host, _, port = authority.rpartition(":")
    with suppress(CorralError), request(Address(host=host.strip("[]"), port=int(port)), "GET", "/health", timeout_s=2):
        return "http"
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=2):
        return "https"
    return "http"
