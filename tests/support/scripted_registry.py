"""Manifests for tests, and a client of a scripted registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corral.descriptors import INDEX, MANIFEST, digest_of
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from support.raw_http import Asked, RawServer, Script, answer, serving

PING = {"GET /v2/": answer(body=b"{}")}
CONFIG = {"mediaType": "application/x", "digest": digest_of(b"{}"), "size": 2}


def layer(data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": "application/vnd.docker.ai.gguf.v3", "digest": digest_of(data), "size": len(data), **more}


def manifest(*layers: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": CONFIG, "layers": layers, **more}).encode()


def index(*entries: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more}).encode()


def entry(data: bytes, os: str = "", architecture: str = "", **more: Any) -> dict[str, Any]:
    platform = {"platform": {"os": os, "architecture": architecture}} if os else {}
    return {"mediaType": MANIFEST, "digest": digest_of(data), "size": len(data), **platform, **more}


@contextmanager
def registry(script: Script, **policy: Any) -> Iterator[tuple[OciRegistry, RawServer]]:
    def whole(asked: Asked) -> bytes | None:
        return PING["GET /v2/"] if asked.path == "/v2/" else script(asked)

    with serving(whole) as server, Egress(EgressPolicy(proxy="", stall_s=5, **policy)) as egress:
        yield OciRegistry(egress, Auth(egress, env={"HOME": "/nonexistent"})), server
