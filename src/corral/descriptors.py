"""Digests and descriptors, as the OCI image specification has them: what names a blob and what says how it looks.

Source: OCI image-spec v1.1, descriptor.md and manifest.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass

MAX_MANIFEST_BYTES = 4 << 20
"""Manifests, indexes and configs are JSON that is read whole; registries refuse larger ones too."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(text: object) -> str:
    """`text`, when it is a sha256 digest in its one spelling. It is safe in a path then.

    Raises ManifestError for anything else.
    """
    if not isinstance(text, str) or _DIGEST.fullmatch(text) is None:
        shown = repr(text)[:100]
        raise ManifestError(f"{shown} is no digest", hint="a digest is sha256: and 64 digits of 0-9 and a-f")
    return text


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob: what it is, its digest, its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")

    def as_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**data, "annotations": dict(self.annotations)} if self.annotations else data


def descriptor_from(data: object) -> Descriptor:
    """A descriptor from decoded JSON. Raises ManifestError."""
    if not isinstance(data, Mapping):
        raise ManifestError("a descriptor is an object", hint="the manifest is damaged")
    size, kind = data.get("size"), data.get("mediaType", "")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise ManifestError(f"a descriptor's size is {repr(size)[:40]}", hint="the manifest is damaged")
    if not isinstance(kind, str) or len(kind) > 255:
        raise ManifestError("a descriptor's media type is no short text", hint="the manifest is damaged")
    notes = data.get("annotations") or {}
    if not isinstance(notes, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in notes.items()):
        raise ManifestError("a descriptor's annotations are no texts", hint="the manifest is damaged")
    return Descriptor(kind, check_digest(data.get("digest")), size, MappingProxyType(dict(notes)))


def decode_json(data: bytes, what: str) -> dict[str, Any]:
    """`data` as a JSON object, bounded. `what` names it in errors. Raises ManifestError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{what} has {len(data)} bytes", hint=f"{MAX_MANIFEST_BYTES} are allowed")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{what} is no JSON", hint="it is damaged, or not what was asked for") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{what} is no JSON object", hint="it is damaged, or not what was asked for")
    return value
