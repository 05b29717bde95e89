"""What the keys about registries, signatures and downloads may be. Pure, without pydantic; rules as in `values`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corral.config.nearest import did_you_mean
from corral.config.scalar import in_words, shorten
from corral.config.settings import Download, Registry, Signed
from corral.config.values import Unfit, size, text, texts, truth, whole
from corral.errors import BadReference
from corral.refs_parse import split_authority

_REGISTRY = ("insecure", "private", "ca", "mirrors", "auto_pull")
_SIGNED = ("prefix", "key")
_DOWNLOAD = ("connections", "limit")

REGISTRIES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "insecure": {"type": "boolean", "description": "Plain HTTP, or HTTPS whose certificate is not checked."},
            "private": {"type": "boolean", "description": "It may be at a private or loopback address."},
            "ca": {"type": "string", "description": "A PEM file with the certificate authority to trust for it."},
            "mirrors": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Hosts that are asked first, in this order.",
            },
            "auto_pull": {"type": "boolean", "description": "As the global key, for this registry."},
        },
    },
}
SIGNED_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["prefix", "key"],
        "properties": {
            "prefix": {"type": "string", "description": "What the full name begins with, such as ghcr.io/me/."},
            "key": {"type": "string", "description": "A PEM file with the public key."},
        },
    },
}
DOWNLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "connections": {"type": "integer", "minimum": 1, "maximum": 16, "description": "At most, for each blob."},
        "limit": {"type": ["string", "integer"], "description": "Bytes per second, all downloads together."},
    },
}


def registries(value: Any) -> dict[str, Registry]:
    found = {}
    for name, keys in _mapping(value, "registries by host, such as {'localhost:5000': {insecure: true}}").items():
        at = host(name)
        given = known(keys, _REGISTRY, f"for {at} ")
        try:
            found[at] = Registry(
                insecure=truth(given.get("insecure", False)),
                private=truth(given.get("private", False)),
                ca=text(given["ca"]) if "ca" in given else None,
                mirrors=tuple(host(each) for each in texts(given.get("mirrors", []))),
                auto_pull=truth(given["auto_pull"]) if "auto_pull" in given else None,
            )
        except ValueError as error:
            raise Unfit(f"for {at} {error}") from None
    return found


def host(value: Any) -> str:
    """`host` or `host:port`, in lower case."""
    if not isinstance(value, str):
        raise Unfit(f"must name hosts such as ghcr.io or localhost:5000, not {in_words(value)}")
    try:
        split_authority(value)
    except BadReference:
        raise Unfit(f"has {shorten(value)!r}, which is no host such as ghcr.io or localhost:5000") from None
    return value.lower()


def hosts(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(host(each) for each in (value if isinstance(value, list) else [value]))


def signed(value: Any) -> tuple[Signed, ...]:
    found = []
    for each in value if isinstance(value, list) else [value]:
        given = known(each, _SIGNED, "")
        for key in _SIGNED:
            if key not in given:
                raise Unfit(f"needs a `{key}` in each entry, such as {{prefix: ghcr.io/me/, key: cosign.pub}}")
        found.append(Signed(text(given["prefix"]), text(given["key"])))
    return tuple(found)


def download(value: Any) -> Download:
    given = known(value, _DOWNLOAD, "")
    return Download(
        connections=whole(1, 16)(given.get("connections", Download().connections)),
        limit_bytes=size(given["limit"]) if given.get("limit") is not None else None,
    )


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f"must give {what}, not {in_words(value)}")
    return value


def known(value: Any, keys: tuple[str, ...], about: str) -> Mapping[str, Any]:
    """`value` if it is a mapping of none but these keys. `about` begins what is said of others."""
    given = _mapping(value, f"{about}keys with values ({', '.join(keys)})")
    for name in given:
        if name not in keys:
            near = did_you_mean(str(name), list(keys), f"valid: {', '.join(keys)}")
            raise Unfit(f"{about}knows no key {shorten(str(name))!r}; {near}")
    return given
