"""Ollama's registry as a source, against a real server that speaks its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from corral.artifact import read_artifact
from corral.descriptors import digest_of
from corral.errors import (
    CorralError,
    DigestMismatch,
    EgressRefused,
    ManifestError,
    NotAllowedThere,
    NotInRegistry,
    RateLimited,
    Unavailable,
)
from corral.refs import Ref
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.ollama import OllamaRegistry
from support.ollama_server import CONFIG, LAYER, OllamaServer, serving
from support.remote import read_blob

LAYERS = {
    "model": b"GGUF" + b"m" * 5000,
    "projector": b"GGUF" + b"p" * 3000,
    "adapter": b"GGUF" + b"a" * 2000,
    "template": b"{{ .Prompt }}",
    "system": b"You are a horse.",
    "params": b'{"temperature":0.5,"stop":["<end>"]}',
    "messages": b'[{"role":"user","content":"hi"}]',
    "license": b"free",
}


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with serving() as found:
        yield found


@pytest.fixture
def egress(server: OllamaServer) -> Iterator[Egress]:
    with Egress(EgressPolicy(private_addresses=("127.0.0.1",), insecure=("127.0.0.1",), stall_s=5), env={}) as found:
        yield found


@pytest.fixture
def key(tmp_path: Path, server: OllamaServer) -> Path:
    """A key as `ollama` makes one, known to the server, which from now on is private."""
    made = Ed25519PrivateKey.generate()
    server.private = True
    server.public_key = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path = tmp_path / "id_ed25519"
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path


def ref(server: OllamaServer, name: str = "o/m", tag: str = "latest", digest: str | None = None) -> Ref:
    return Ref("ollama", server.host, name, tag, digest)


def test_manifest_is_kept_as_it_is(server: OllamaServer, egress: Egress) -> None:
    """A model's manifest is the registry's own, byte for byte, and every layer of it is offered."""
    raw = server.add("o/m:latest", LAYERS)
    model = OllamaRegistry(egress).resolve(ref(server))
    assert model.manifest == raw
    assert model.manifest_type == "application/vnd.docker.distribution.manifest.v2+json"
    assert [blob.title for blob in model.blobs] == ["config", *LAYERS]
    assert [blob.media_type for blob in model.blobs] == [CONFIG, *(LAYER + kind for kind in LAYERS)]
    found = read_artifact(json.loads(raw), {"model_format": "gguf"})
    assert {file.role for file in found.files} >= {"weights", "mmproj", "adapter", "template", "system", "params"}


def test_blobs_come_from_storage_in_ranges(server: OllamaServer, egress: Egress) -> None:
    """Each blob is what its digest says, whole or in part, from where the registry redirects to."""
    server.add("o/m:latest", LAYERS)
    model = OllamaRegistry(egress).resolve(ref(server))
    for blob in model.blobs:
        assert digest_of(read_blob(blob)) == blob.digest
    weights = model.blobs[1]
    assert read_blob(weights, 4, 10) == b"m" * 10
    assert server.stored[-1][1]["range"] == "bytes=4-13"


def test_pinned_model_must_be_what_the_tag_gives(server: OllamaServer, egress: Egress) -> None:
    """A pin holds while the tag gives that manifest, and is an error with both digests afterwards."""
    source = OllamaRegistry(egress)
    digest = digest_of(server.add("o/m:latest", LAYERS))
    assert source.resolve(ref(server, digest=digest)).manifest
    server.add("o/m:latest", LAYERS | {"system": b"You are a cow."})
    with pytest.raises(DigestMismatch, match=digest):
        source.resolve(ref(server, digest=digest))


def test_mirror_is_asked_first_and_need_not_have_it(server: OllamaServer) -> None:
    """A mirror gives what it has; the rest comes from the registry itself."""
    server.add("o/m:latest", LAYERS)
    with serving() as mirror:
        policy = EgressPolicy(
            private_addresses=("127.0.0.1",), insecure=("127.0.0.1",), mirrors={server.host: (mirror.host,)}, stall_s=5
        )
        with Egress(policy, env={}) as egress:
            model = OllamaRegistry(egress).resolve(ref(server))
            assert any("/manifests/" in path for path, _ in mirror.asked)
            mirror.blobs = dict(server.blobs)
            asked = len(server.asked)
            assert read_blob(model.blobs[1]) == LAYERS["model"]
            assert len(server.asked) == asked


# Who is asking -------------------------------------------------------------------------------------------------------


def test_private_model_is_opened_by_the_key_of_ollama(server: OllamaServer, egress: Egress, key: Path) -> None:
    """A registry that asks gets a signature, gives a token, and the token is used again but never at the storage."""
    server.add("o/m:latest", LAYERS)
    source = OllamaRegistry(egress, key=key)
    model = source.resolve(ref(server))
    assert read_blob(model.blobs[1]) == LAYERS["model"]
    assert sum(path.startswith("/v2/token") for path, _ in server.asked) == 1
    assert not any("authorization" in head for _, head in server.stored)


def test_token_that_expired_is_renewed(server: OllamaServer, egress: Egress, key: Path) -> None:
    """A blob opened long after its model was resolved gets a new token when the old one is refused."""
    server.add("o/m:latest", LAYERS)
    source = OllamaRegistry(egress, key=key)
    model = source.resolve(ref(server))
    source._tokens._tokens[server.host, "o/m"] = "stale"
    assert read_blob(model.blobs[1]) == LAYERS["model"]


def test_without_a_key_a_private_model_is_refused(server: OllamaServer, egress: Egress, tmp_path: Path) -> None:
    """Without a key there is nothing to show, and the error says that it is private."""
    server.private = True
    with pytest.raises(NotAllowedThere):
        OllamaRegistry(egress, key=tmp_path / "none").resolve(ref(server))


def test_unknown_key_is_refused_with_what_to_do(server: OllamaServer, egress: Egress, key: Path) -> None:
    """A key the registry does not know is refused with the command that makes it known."""
    other = Ed25519PrivateKey.generate().public_key()
    server.public_key = other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with pytest.raises(NotAllowedThere) as caught:
        OllamaRegistry(egress, key=key).resolve(ref(server))
    assert "ollama signin" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_damaged_key_is_said(server: OllamaServer, egress: Egress, key: Path, content: bytes) -> None:
    """A key that cannot be read is an error about the key."""
    key.write_bytes(content)
    with pytest.raises(NotAllowedThere, match="cannot be used"):
        OllamaRegistry(egress, key=key).resolve(ref(server))


def test_key_is_never_shown_to_another_host(server: OllamaServer, egress: Egress, key: Path) -> None:
    """A realm elsewhere gets no signature, even where its address is allowed."""
    server.realm = f"{server.storage}/v2/token"
    with pytest.raises(NotAllowedThere, match="another host"):
        OllamaRegistry(egress, key=key).resolve(ref(server))
    assert server.stored == []


# A server that lies or is out of order -------------------------------------------------------------------------------


def test_absent_model_is_said(server: OllamaServer, egress: Egress) -> None:
    """A tag that is not there is NotInRegistry with its name."""
    with pytest.raises(NotInRegistry, match="o/m:latest"):
        OllamaRegistry(egress).resolve(ref(server))


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, Unavailable), (403, NotAllowedThere)])
def test_refusals_have_their_errors(server: OllamaServer, egress: Egress, status: int, kind: type[CorralError]) -> None:
    """A status becomes the error that everybody understands."""
    source = OllamaRegistry(egress)
    source._egress.base_url(server.host)
    server.status, server.headers = status, {"Retry-After": "7"}
    with pytest.raises(kind) as caught:
        source.resolve(ref(server))
    assert caught.value.hint


def _manifest(server: OllamaServer, **changes: Any) -> dict[str, Any]:
    layers = [server.describe(LAYER + kind, data) for kind, data in LAYERS.items()]
    return {"schemaVersion": 2, "config": server.describe(CONFIG, b"{}"), "layers": layers, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": None},
        {"layers": {}},
        {"layers": []},
        {"layers": [{}]},
        {"layers": [[]]},
        {"layers": [{"mediaType": LAYER + "model", "digest": "sha256:../../x", "size": 1}]},
        {"layers": [{"mediaType": LAYER + "model", "digest": "sha256:" + "a" * 64, "size": -1}]},
        {"layers": [{"mediaType": LAYER + "model", "digest": "sha256:" + "a" * 64, "size": "1"}]},
        {"layers": [{"mediaType": LAYER + "model", "digest": "sha256:" + "a" * 64, "size": n} for n in (1, 2)]},
        {"layers": [{"mediaType": LAYER + "template", "digest": "sha256:" + "a" * 64, "size": 1}]},
        {"layers": [{"mediaType": LAYER + "tensor;name=x", "digest": "sha256:" + "a" * 64, "size": 1}]},
        {"layers": [{"mediaType": LAYER + "model", "digest": "sha256:" + "a" * 64, "size": 1}] * 5000},
        {"config": None},
        {"config": {"digest": "md5:x", "size": 1}},
    ],
)
def test_absurd_manifests_are_refused(server: OllamaServer, egress: Egress, changes: dict[str, Any]) -> None:
    """A manifest that is damaged, or has nothing that can be served from files, is refused with the reason."""
    server.add_manifest("o/m:latest", _manifest(server, **changes))
    with pytest.raises(ManifestError) as caught:
        OllamaRegistry(egress).resolve(ref(server))
    assert caught.value.hint


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b'{"layers":' + b"[" * 100_000, b" " * (5 << 20)])
def test_manifest_that_is_none_is_refused(server: OllamaServer, egress: Egress, raw: bytes) -> None:
    """What is no JSON object, or too large for one, is refused."""
    server.manifests["o/m:latest"] = raw
    with pytest.raises(ManifestError):
        OllamaRegistry(egress).resolve(ref(server))


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/x", "http://169.254.169.254/latest", "file:///etc/passwd"])
def test_redirect_inwards_is_refused(server: OllamaServer, place: str) -> None:
    """A registry on this machine cannot send us to another place of it, nor to a file."""
    server.add("o/m:latest", LAYERS)
    server.redirect = place
    with Egress(EgressPolicy(stall_s=5), env={}) as egress:
        model = OllamaRegistry(egress).resolve(ref(server))
        with pytest.raises(EgressRefused):
            model.blobs[1].open(0, None)
