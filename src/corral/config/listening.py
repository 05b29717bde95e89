"""Addresses to listen on: reading them, and telling which stay on this machine. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from corral.config.settings import DEFAULT_PORT, DIALECTS, Listen, Tls

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_DIALECT = ",dialect="
_EXAMPLES = "write 127.0.0.1:8642, [::1]:8642 or unix:/path/of/socket"
MAX_SOCKET_BYTES = 103  # macOS's sun_path; Linux has 107


_KEYS = ("address", "unix", "dialect", "tls", "insecure", "page")
LISTEN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "address": {"type": ["string", "integer"], "description": "host:port, or a port of 127.0.0.1."},
        "unix": {"type": "string", "description": "The path of a unix socket, instead of an address."},
        "dialect": {"enum": list(DIALECTS), "description": "Whose API has root paths on which APIs differ."},
        "tls": {
            "type": "object",
            "additionalProperties": False,
            "required": ["cert", "key"],
            "properties": {"cert": {"type": "string"}, "key": {"type": "string"}},
            "description": "PEM files of a certificate and its key.",
        },
        "insecure": {"type": "boolean", "description": "Beyond this machine, but open to everybody."},
        "page": {"type": "string", "description": "The folder of llama.cpp's web page; with `dialect: llamacpp`."},
    },
}


def listen_entry(given: dict[Any, Any]) -> Listen:
    """An address with more to say about it: `{address: 0.0.0.0:8643, tls: {cert: …, key: …}}`. Raises ValueError."""
    if (fault := _fault(given)) is not None:
        raise ValueError(fault)
    listen = parse_listen(str(given["address"]) if "address" in given else f"unix:{given['unix']}")
    dialect, tls = given.get("dialect"), given.get("tls")
    return replace(
        listen,
        dialect=None if dialect == "openai" else dialect,
        tls=None if tls is None else Tls(Path(tls["cert"]), Path(tls["key"])),
        insecure=given.get("insecure", False),
        page=Path(given["page"]) if "page" in given else None,
    )


def listen_text(text: str) -> Listen:
    """As `parse_listen`, and `127.0.0.1:11434,dialect=ollama`, as a command line says it. Raises ValueError."""
    address, comma, dialect = text.partition(_DIALECT)
    if not comma:
        return parse_listen(text)
    return listen_entry({("unix" if address.startswith("unix:") else "address"): address.removeprefix("unix:"),
                         "dialect": dialect.strip()})  # fmt: skip


def with_dialects(items: list[Any]) -> list[Any]:
    """`items` of a list that was cut at its commas: a dialect belongs to the address before it."""
    found: list[Any] = []
    for item in items:
        if found and isinstance(found[-1], str) and isinstance(item, str) and item.strip().startswith(_DIALECT[1:]):
            found[-1] = f"{found[-1]},{item.strip()}"
        else:
            found.append(item)
    return found


def _fault(given: dict[Any, Any]) -> str | None:
    for name in given:
        if name not in _KEYS:
            return f"has an unknown key {str(name)[:40]!r} (valid: {', '.join(_KEYS)})"
    if ("address" in given) == ("unix" in given):
        return "needs one of `address` and `unix`"
    text = given.get("address", given.get("unix"))
    if isinstance(text, bool) or not isinstance(text, (str, int) if "address" in given else str):
        return "has an address that is no text"
    if given.get("dialect") not in (None, *DIALECTS):
        return f"has a dialect that is none of {', '.join(DIALECTS)}"
    if not isinstance(given.get("insecure", False), bool):
        return "has `insecure`, which must be true or false"
    if "page" in given:
        if not isinstance(given["page"], str) or not given["page"] or "\0" in given["page"]:
            return "has `page`, which must be the folder of llama.cpp's web page"
        if given.get("dialect") != "llamacpp":
            return "has `page`, llama.cpp's web page, which needs `dialect: llamacpp` beside it"
    tls = given.get("tls")
    if tls is not None:
        if not isinstance(tls, dict) or set(tls) != {"cert", "key"}:
            return "has `tls`, which must be {cert: FILE, key: FILE}"
        if not all(isinstance(each, str) and each for each in tls.values()):
            return "has `tls` with a file that is no text"
    return None


def parse_listen(text: str) -> Listen:
    """`"127.0.0.1:8642"`, `"localhost"`, `"[::1]:0"`, `"8642"` (on 127.0.0.1) or `"unix:/path"`.

    Raises ValueError that says what is wrong with it.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f"is no address ({_EXAMPLES})")
        return Listen(host="", port=0, path=Path(path))
    text = text.strip()
    if text.isascii() and text.isdigit():
        return Listen(port=_port(text))
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"is no address ({_EXAMPLES})")
        return Listen(str(_ip(host)), _port(rest[1:]) if rest else DEFAULT_PORT)
    if text.count(":") > 1:
        return Listen(str(_ip(text)), DEFAULT_PORT)
    host, colon, port = text.partition(":")
    if not host and colon:
        raise ValueError(f"names no host (write 127.0.0.1:{port}, or 0.0.0.0:{port} for every network)")
    if not _HOST.fullmatch(host) or "//" in text:
        raise ValueError(f"is no address ({_EXAMPLES})")
    if re.fullmatch(r"[0-9.]+", host):
        _ip(host)
    elif not colon and "." not in host and host != "localhost":
        raise ValueError(f"is no address (write {host}:{DEFAULT_PORT} if it is a host's name; {_EXAMPLES})")
    return Listen(host, _port(port) if colon else DEFAULT_PORT)


def is_loopback(listen: Listen) -> bool:
    """Whether only this machine can reach it. A host name other than localhost counts as reachable from outside."""
    if listen.path is not None or listen.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        return False


def clash(one: Listen, other: Listen) -> bool:
    """Whether both cannot be bound at once, as far as the texts tell."""
    if one.path is not None or other.path is not None:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    return one.host == other.host or bool({one.host, other.host} & {"0.0.0.0", "::"})


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError("has no port between 0 and 65535")
    return int(text)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"is no IP address ({_EXAMPLES})") from None
