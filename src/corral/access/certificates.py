"""A certificate authority for one's own network: `corral tls init`. `cryptography` is loaded by those who call this."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.config.atomic import replace_file
from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS: Final = 3650
DAYS: Final = 397
"""How long a server's certificate counts: browsers and Apple's systems refuse longer ones."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where they are: the authority's certificate is for clients, its key for nobody."""

    ca: Path
    ca_key: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Issued:
    """What `init` did."""

    files: Files
    names: list[str]
    fingerprint: str  # SHA-256 of the authority's certificate, as other programs show it
    until: str  # the day on which the server's certificate ends
    fresh_ca: bool


def files_in(directory: Path) -> Files:
    return Files(*(directory / name for name in ("ca.pem", "ca-key.pem", "server.pem", "server-key.pem")))


def init(directory: Path, names: Sequence[str] = (), now: datetime.datetime | None = None) -> Issued:
    """Makes a server's certificate, for `names` and those of this machine, signed by the authority in `directory`,
    which is made if there is none. A running server takes the new certificate up by itself. Raises ConfigError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = now or datetime.datetime.now(datetime.UTC)
    files = files_in(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = not (files.ca.exists() and files.ca_key.exists())
    if fresh:
        ca_key, ca = _authority(now)
        replace_file(files.ca_key, _pem_key(ca_key), 0o600)
        replace_file(files.ca, ca.public_bytes(serialization.Encoding.PEM).decode(), 0o644)
    else:
        ca_key, ca = _read_authority(files)
    wanted = list(dict.fromkeys([*names, *own_names()]))
    key = _new_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, wanted[0][:64])])
    until = min(now + datetime.timedelta(days=DAYS), ca.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in wanted]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    # The key first: a server that looks in between finds a pair that does not fit, and keeps the one it has.
    replace_file(files.key, _pem_key(key), 0o600)
    replace_file(files.cert, certificate.public_bytes(serialization.Encoding.PEM).decode(), 0o644)
    digest = ca.fingerprint(hashes.SHA256()).hex(":").upper()
    return Issued(files, wanted, digest, until.date().isoformat(), fresh)


def look(directory: Path) -> dict[str, str]:
    """The certificate in `directory`, in words by what they say. Raises ConfigError when there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    files = files_in(directory)
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"there is no certificate in {directory} that can be read", hint="make one with: corral tls init"
        ) from error
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        "certificate": str(files.cert),
        "names": ", ".join(str(each.value) for each in names),
        "until": cert.not_valid_after_utc.date().isoformat(),
        "authority": str(files.ca),
        "authority's SHA-256": ca.fingerprint(hashes.SHA256()).hex(":").upper(),
    }


def own_names() -> list[str]:
    """This machine's names and addresses, the one that others in the network see first."""
    found = [each for each in (lan_address(), socket.gethostname()) if each]
    name = socket.gethostname().partition(".")[0]
    with contextlib.suppress(OSError):
        found += [str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(socket.gethostname(), None)]
    found += [f"{name}.local", "localhost", "127.0.0.1", "::1"]
    return [each for each in dict.fromkeys(found) if _is_name(each)]


def lan_address() -> str | None:
    """The address under which others in the network reach this machine; None without a network. Sends nothing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # documentation's own address: only the route to it is looked up
        address = str(probe.getsockname()[0])
        return None if ipaddress.ip_address(address).is_loopback else address
    return None


def _is_name(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return not ipaddress.ip_address(text).is_unspecified
    return text.isascii() and 0 < len(text) <= 253


def _authority(now: datetime.datetime) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = _new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Corral CA of {socket.gethostname()}"[:64])])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, made


def _read_authority(files: Files) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(files.ca_key.read_bytes(), None)
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the authority in {files.ca.parent} cannot be read: {error}", hint="move that directory away to begin anew"
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigError(f"{files.ca_key} is not the key of {files.ca}", hint="move that directory away to begin anew")
    return key, ca


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem_key(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
