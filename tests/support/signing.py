"""Keys, and signatures as cosign writes them, made with another library's functions than those that check them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from corral.descriptors import INDEX, MANIFEST, digest_of
from support.faulty_registry import FaultyRegistry

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNS = "https://sigstore.dev/cosign/sign/v1"


@dataclass(frozen=True)
class Signer:
    """A private key."""

    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @classmethod
    def make(cls, kind: str = "p256") -> Signer:
        match kind:
            case "ed25519":
                return cls(ed25519.Ed25519PrivateKey.generate())
            case "p384":
                return cls(ec.generate_private_key(ec.SECP384R1()))
            case _:
                return cls(ec.generate_private_key(ec.SECP256R1()))

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(message, ec.ECDSA(SHA256()))
        return self.key.sign(message)

    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def private(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, path: Path) -> str:
        """Its public half at `path`."""
        path.write_bytes(self.public())
        return str(path)


def payload(digest: str, **critical: Any) -> bytes:
    """What cosign signs for the manifest `digest`."""
    whole = {
        "identity": {"docker-reference": "ghcr.io/me/tiny"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**whole, **critical}, "optional": None}).encode()


def simple(signed: bytes, signature: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A signature manifest of cosign's older form, and its blobs."""
    layer = {
        "mediaType": SIMPLE,
        "digest": digest_of(signed),
        "size": len(signed),
        "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()},
    }
    config = b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_of(config),
        "size": len(config),
    }
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}
    return manifest, {digest_of(signed): signed, digest_of(config): config}


def bundle(signer: Signer, digest: str, *, predicate: str = SIGNS, tampered: bool = False) -> bytes:
    """A bundle as cosign 3 makes it with a key of one's own."""
    statement = json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest[7:]}}],
            "predicateType": predicate,
            "predicate": {},
        }
    ).encode()
    kind = "application/vnd.in-toto+json"
    signature = signer.sign(b"DSSEv1 " + f"{len(kind)} {kind} {len(statement)} ".encode() + statement)
    if tampered:
        statement += b" "
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    material = {"publicKey": {"hint": "x"}}
    whole = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(whole).encode()


def bundled(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A manifest that carries a bundle, and its blobs."""
    layer = {"mediaType": BUNDLE, "digest": digest_of(content), "size": len(content)}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": empty, "layers": [layer]}
    return manifest, {digest_of(content): content, digest_of(b"{}"): b"{}"}


def attach(
    registry: FaultyRegistry,
    repository: str,
    digest: str,
    found: tuple[Mapping[str, Any], Mapping[str, bytes]],
    *,
    by: str,
) -> None:
    """Puts a signature manifest into `registry` `by` cosign's "tag", or in the list of a digest's referrers."""
    manifest, blobs = found
    registry.blobs.update(blobs)
    data = json.dumps(manifest).encode()
    registry.manifests[f"{repository}@{digest_of(data)}"] = data
    tag = digest.replace(":", "-")
    if by == "tag":
        registry.manifests[f"{repository}:{tag}.sig"] = data
        return
    entry = {"mediaType": MANIFEST, "digest": digest_of(data), "size": len(data), "artifactType": BUNDLE}
    known = json.loads(registry.manifests.get(f"{repository}:{tag}", b'{"manifests":[]}'))["manifests"]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*known, entry]}
    registry.manifests[f"{repository}:{tag}"] = json.dumps(index).encode()
