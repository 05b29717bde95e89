"""Public keys that signatures are checked with: ECDSA on P-256 and Ed25519, as `cosign generate-key-pair` and openssl
write them."""

from __future__ import annotations

import hashlib
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_KEY_BYTES: Final = 64 << 10
_BEGIN: Final = "-----BEGIN "
_HOW: Final = "it should be what `cosign generate-key-pair` writes as cosign.pub: PUBLIC KEY in PEM, P-256 or Ed25519"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key. `fingerprint` is the SHA-256 of its DER form, as `openssl pkey -pubin -outform DER` writes it."""

    where: str  # the file, for people
    fingerprint: str
    kind: str  # "ECDSA P-256" or "Ed25519"
    _key: EllipticCurvePublicKey | Ed25519PublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` was made of `message` with this key's other half."""
        # Here and not above: 20 ms, for those who have a policy only.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if isinstance(self._key, EllipticCurvePublicKey):
                self._key.verify(signature, message, ECDSA(SHA256()))
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def read_key(key: str) -> PublicKey:
    """The public key in the PEM file `key`, or in `key` itself. Raises ConfigError."""
    if _BEGIN in key:
        return key_of(key.encode(), "the key in the configuration")
    path = Path(key).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the public key {path} cannot be read: {error.strerror}", hint=_HOW) from error
    if len(data) > MAX_KEY_BYTES:
        raise ConfigError(f"the public key {path} has more than {MAX_KEY_BYTES} bytes", hint=_HOW)
    return key_of(data, str(path))


def key_of(data: bytes, where: str) -> PublicKey:
    """The public key in `data`. Raises ConfigError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise ConfigError(f"{where} is a private key", hint="name the public one, and keep this one to yourself")
    if b"BEGIN CERTIFICATE" in data:
        raise ConfigError(f"{where} is a certificate", hint=f"only plain keys are supported: {_HOW}")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where} is no public key", hint=_HOW) from error
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        kind = "ECDSA P-256"
    elif isinstance(key, Ed25519PublicKey):
        kind = "Ed25519"
    else:
        curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        raise ConfigError(f"{where} is a key of a kind that is not supported ({curve})", hint=_HOW)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(where, "sha256:" + hashlib.sha256(der).hexdigest(), kind, key)
