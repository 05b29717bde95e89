"""What is signed, in the two forms that cosign writes: simple signing payloads, and bundles. Pure.

Source: cosign's SIGNATURE_SPEC.md; the container-signature(5) format of simple signing; sigstore's bundle format v0.3;
DSSE v1 (its protocol.md); in-toto's Statement v1. Cosign writes bundles by default since its version 3.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from corral.descriptors import check_digest
from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_NOTE: Final = "dev.cosignproject.cosign/signature"
BUNDLE_PREFIX: Final = "application/vnd.dev.sigstore.bundle"  # …+json;version=0.1 once, ….v0.3+json since
IN_TOTO: Final = "application/vnd.in-toto+json"
STATEMENTS: Final = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
SIGNS: Final = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a signature. Others (provenance, bills of materials) tell about a model and do not vouch for it."""

PAYLOAD_TYPE: Final = "cosign container image signature"
MAX_SIGNATURES: Final = 64  # of one bundle
MAX_SIGNATURE_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes that are signed, their signatures, and the digests that they vouch for once one of those holds."""

    form: str  # "cosign" or "bundle"
    message: bytes  # what the signature is made of
    signatures: tuple[bytes, ...]
    digests: tuple[str, ...]
    signed_as: str = ""  # the name the signer gave it; signatures may be copied with a model, so it is only told


def simple_claim(payload: bytes, signature: str) -> Claim:
    """A simple signing payload and the text of its annotation. Raises ManifestError."""
    data = _object(payload, "the signed payload")
    critical = data.get("critical")
    image = critical.get("image") if isinstance(critical, Mapping) else None
    if not isinstance(critical, Mapping) or not isinstance(image, Mapping) or critical.get("type") != PAYLOAD_TYPE:
        raise _wrong("the signed payload is of another kind")
    identity = critical.get("identity")
    name = identity.get("docker-reference") if isinstance(identity, Mapping) else None
    digest = check_digest(image.get("docker-manifest-digest"))
    signed_as = name if isinstance(name, str) and len(name) <= 500 and name.isprintable() else ""
    return Claim("cosign", payload, (decode_signature(signature),), (digest,), signed_as)


def bundle_claim(bundle: bytes) -> Claim:
    """A sigstore bundle with a DSSE envelope about an image. Raises ManifestError."""
    data = _object(bundle, "the bundle")
    envelope = data.get("dsseEnvelope")
    if not isinstance(envelope, Mapping):
        raise _wrong("the bundle holds no DSSE envelope")
    kind, signatures = envelope.get("payloadType"), envelope.get("signatures")
    if kind != IN_TOTO or not isinstance(signatures, list) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise _wrong("the bundle's envelope is of another kind")
    payload = _base64(envelope.get("payload"), len(bundle))
    found = tuple(decode_signature(each.get("sig")) for each in signatures if isinstance(each, Mapping))
    statement = _object(payload, "the bundle's statement")
    if statement.get("_type") not in STATEMENTS or statement.get("predicateType") != SIGNS:
        raise _wrong("the bundle says something about the model and does not sign it")
    return Claim("bundle", pre_authentication(kind, payload), found, _subjects(statement))


def pre_authentication(kind: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature is made of."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _subjects(statement: Mapping[str, Any]) -> tuple[str, ...]:
    subjects = statement.get("subject")
    found = []
    for subject in subjects if isinstance(subjects, list) else []:
        digest = subject.get("digest") if isinstance(subject, Mapping) else None
        if isinstance(digest, Mapping) and "sha256" in digest:
            found.append(check_digest(f"sha256:{digest['sha256']}"))
    return tuple(found)


def decode_signature(text: object) -> bytes:
    """A signature from its base64 text. Raises ManifestError."""
    return _base64(text, MAX_SIGNATURE_BYTES)


def _base64(text: object, limit: int) -> bytes:
    if not isinstance(text, str) or len(text) > 2 * limit:
        raise _wrong("a signature is no text of a reasonable length")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong("a signature is no base64") from error


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{what} is no JSON") from error
    if not isinstance(value, dict):
        raise _wrong(f"{what} is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated keys: two readers could see two different digests in one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _wrong(what: str) -> ManifestError:
    return ManifestError(what, hint="sign the model again with cosign")
