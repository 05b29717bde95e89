"""A small real server that speaks the protocol of Ollama's registry, and a second one as its storage.

A blob's address answers 307 to the storage, where it comes by range. With `private`, the registry wants a token, which
its own `/v2/token` gives to the owner of `public_key` for a signature.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from support.http_servers import QuietHandler, running

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.ollama.image."


@dataclass
class OllamaServer:
    """What the servers know and were asked."""

    base: str = ""
    storage: str = ""
    manifests: dict[str, bytes] = field(default_factory=dict)  # by "owner/name:tag"
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stored: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    private: bool = False
    public_key: str = ""  # as in an authorized_keys file
    realm: str = ""  # where tokens are said to be given, instead of here
    redirect: str = ""  # where blobs are said to be, instead of the storage
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.base).netloc

    def add(self, name: str, layers: dict[str, bytes], config: dict[str, Any] | None = None) -> bytes:
        """A model of the layers by their kind (`model`, `template` …); its manifest."""
        return self.add_manifest(
            name,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self.describe(CONFIG, json.dumps(config or {"model_format": "gguf"}).encode()),
                "layers": [self.describe(LAYER + kind, data) for kind, data in layers.items()],
            },
        )

    def add_manifest(self, name: str, manifest: Any) -> bytes:
        self.manifests[name] = json.dumps(manifest).encode()
        return self.manifests[name]

    def describe(self, media_type: str, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


@contextmanager
def serving() -> Iterator[OllamaServer]:
    """Both servers, running."""
    state = OllamaServer()
    with running(_Registry, state) as base, running(_Storage, state) as storage:
        state.base, state.storage = base, storage
        yield state


class _Storage(QuietHandler):
    state: OllamaServer

    def do_GET(self) -> None:
        self.state.stored.append((self.path, self.head()))
        self.answer_content(self.state.blobs[self.path.removeprefix("/")])


class _Registry(QuietHandler):
    state: OllamaServer

    def do_GET(self) -> None:
        state = self.state
        state.asked.append((self.path, self.head()))
        path = urlsplit(self.path).path
        if state.status:
            self.answer(state.status, b"", state.headers)
        elif path == "/v2/":
            self.answer(200)
        elif path == "/v2/token":
            self._token()
        elif state.private and self.headers.get("Authorization") != "Bearer good":
            realm = state.realm or f"{state.base}/v2/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="repository:o/m:pull"'
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        else:
            repository, kind, name = _split(path)
            self._manifest(f"{repository}:{name}") if kind == "manifests" else self._blob(name)

    def _manifest(self, name: str) -> None:
        raw = self.state.manifests.get(name)
        if raw is None:
            self._error(404, "MANIFEST_UNKNOWN")
        else:
            self.answer(200, raw, {"Content-Type": MANIFEST})

    def _blob(self, digest: str) -> None:
        if digest in self.state.blobs:
            self.answer(307, b"", {"Location": self.state.redirect or f"{self.state.storage}/{digest}"})
        else:
            self._error(404, "BLOB_UNKNOWN")

    def _token(self) -> None:
        """Gives a token for a signature of the very URL, made with the key that is known."""
        key, _, signature = self.headers.get("Authorization", "").partition(":")
        empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        query = parse_qs(urlsplit(self.path).query)
        try:
            assert key == self.state.public_key.split()[1]
            assert query["service"] == ["registry"] and query["scope"] == ["repository:o/m:pull"]
            assert query["ts"][0].isdigit() and len(query["nonce"][0]) >= 16
            key_of_owner = load_ssh_public_key(self.state.public_key.encode())
            assert isinstance(key_of_owner, Ed25519PublicKey)
            key_of_owner.verify(base64.b64decode(signature), f"GET,{self.state.base}{self.path},{empty}".encode())
        except (AssertionError, InvalidSignature, KeyError, IndexError):
            self._error(401, "DENIED")
        else:
            self.answer_json({"token": "good"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer_json({"errors": [{"code": code, "message": code.lower()}]}, status, headers)


def _split(path: str) -> tuple[str, str, str]:
    """`/v2/owner/name/manifests/tag` in its three parts."""
    repository, kind, name = path.removeprefix("/v2/").rsplit("/", 2)
    return repository, kind, name
