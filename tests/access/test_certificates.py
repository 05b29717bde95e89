"""An authority of one's own, and certificates that change while they are served."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey

from corral.access import certificates, tls
from corral.config.settings import Tls
from corral.errors import ConfigError

NOW = datetime.datetime(2026, 11, 21, 8, tzinfo=datetime.UTC)


def read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_an_authority_is_made_once_and_signs(tmp_path: Path) -> None:
    """Keys are for this user only; the certificate is for the names, by the authority, for as long as browsers take."""
    place = tmp_path / "tls"
    first = certificates.init(place, ["box.example.org", "198.51.100.7"], NOW)
    files = first.files
    assert first.fresh_ca and first.names[:2] == ["box.example.org", "198.51.100.7"]
    assert [file.stat().st_mode & 0o777 for file in (files.ca_key, files.key)] == [0o600, 0o600]
    assert place.stat().st_mode & 0o777 == 0o700
    ca, server = read(files.ca), read(files.cert)
    key = ca.public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    key.verify(server.signature, server.tbs_certificate_bytes, ECDSA(hashes.SHA256()))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "box.example.org" in names.get_values_for_type(x509.DNSName)
    addresses = {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert {"198.51.100.7", "127.0.0.1", "::1"} <= addresses
    assert server.not_valid_after_utc - NOW == datetime.timedelta(days=397)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    again = certificates.init(place, [], NOW)
    assert not again.fresh_ca and again.fingerprint == first.fingerprint
    assert read(files.cert).serial_number != server.serial_number
    assert certificates.look(place)["authority's SHA-256"] == first.fingerprint


def test_an_authority_that_is_spoilt_is_left_alone(tmp_path: Path) -> None:
    """Nothing new is signed by it, and it is not replaced."""
    files = certificates.init(tmp_path / "a").files
    other = certificates.init(tmp_path / "b").files
    files.ca_key.write_bytes(other.ca_key.read_bytes())
    before = files.cert.read_bytes()
    with pytest.raises(ConfigError, match="is not the key of"):
        certificates.init(tmp_path / "a")
    files.ca_key.write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        certificates.init(tmp_path / "a")
    assert files.cert.read_bytes() == before
    with pytest.raises(ConfigError, match="there is no certificate"):
        certificates.look(tmp_path / "c")


def _subject(context: ssl.SSLContext, trusted: Path) -> str:
    """The serial number that a client sees, by a handshake in memory."""
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    client = ssl.create_default_context(cafile=str(trusted)).wrap_bio(
        client_in, client_out, server_hostname="localhost"
    )
    server = context.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    found = client.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_files_that_change_are_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole new pair with the next look; half of one never, however long it stays; looks are a second apart."""
    files = certificates.init(tmp_path).files
    now = 100.0
    monkeypatch.setattr("corral.clock.monotonic", lambda: now)
    served = tls.Served(Tls(files.cert, files.key))
    first = _subject(served.context, files.ca)
    old_key = files.key.read_bytes()
    certificates.init(tmp_path)
    served.refresh()
    assert _subject(served.context, files.ca) == first  # too early for a look
    new_key = files.key.read_bytes()
    files.key.write_bytes(old_key)
    now += 1
    served.refresh()
    assert served.problem is not None and _subject(served.context, files.ca) == first
    files.key.write_bytes(new_key)
    now += 1
    served.refresh()
    assert served.problem is None
    second = _subject(served.context, files.ca)
    assert second != first
    os.unlink(files.cert)  # noqa: PTH108
    now += 1
    served.refresh()
    assert served.problem is not None and _subject(served.context, files.ca) == second


@pytest.mark.parametrize("spoil", ["cert", "key", "both", "gone"])
def test_a_pair_that_is_no_good_is_told(tmp_path: Path, spoil: str) -> None:
    """With the files' names and what to do."""
    files = certificates.init(tmp_path / "a").files
    other = certificates.init(tmp_path / "b").files
    if spoil == "cert":
        files.cert.write_text("nothing")
    elif spoil == "key":
        files.key.write_bytes(other.key.read_bytes())
    elif spoil == "both":
        files.cert.write_text(""), files.key.write_text("")
    else:
        files.key.unlink()
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        tls.Served(Tls(files.cert, files.key))
    assert str(files.cert) in caught.value.message and "corral tls init" in caught.value.hint
