"""Signatures: what a policy asks for is checked to the last byte, and what cannot be checked is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config.settings import Signed
from corral.descriptors import INDEX, MANIFEST, Descriptor, digest_of
from corral.errors import ConfigError, ManifestError, RegistryError, SignatureError, Unavailable
from corral.models.fetching.downloads import Downloads
from corral.models.signing.formats import bundle_claim, pre_authentication, simple_claim
from corral.models.signing.keys import key_of, read_key
from corral.models.signing.lookup import find_signature, verifier
from corral.models.signing.policy import Attached, Fetch, Policy, full_prefix, load_policy, verify_signature
from corral.refs import Ref
from corral.refs_parse import parse_ref
from models.fetching import QUICK, World, world
from support.faulty_registry import Fault
from support.signing import Signer, attach, bundle, bundled, payload, simple

MODEL = digest_of(b"a model's manifest")
OTHER = digest_of(b"another model's manifest")
REF = Ref("oci", "ghcr.io", "me/tiny", "latest")


def policy_of(*pairs: tuple[str, Signer]) -> Policy:
    """A policy whose keys are in the configuration itself."""
    return load_policy(Signed(prefix, signer.public().decode()) for prefix, signer in pairs)


Found = tuple[dict[str, Any], dict[str, bytes]]


def held(*found: Found) -> Fetch:
    """`fetch_signature` of a registry that has these for every digest."""

    def read(blobs: dict[str, bytes], layer: Descriptor) -> bytes:
        return blobs[layer.digest]

    return lambda ref, digest: [Attached(manifest, partial(read, blobs)) for manifest, blobs in found]


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_signature_by_the_key_lets_the_model_in(kind: str) -> None:
    """Both kinds of keys and both forms are accepted, and what was checked is told."""
    signer = Signer.make(kind)
    policy = policy_of(("ghcr.io/me", signer))
    for form, found in {
        "cosign": simple(payload(MODEL), signer.sign(payload(MODEL))),
        "bundle": bundled(bundle(signer, MODEL)),
    }.items():
        verified = verify_signature(policy, REF, MODEL, held(found))
        assert verified is not None and (verified.form, verified.digest) == (form, MODEL)
        assert verified.key == key_of(signer.public(), "").fingerprint
        assert verified.annotations == {"corral.signed-by": verified.key}
    assert verify_signature(policy, Ref("oci", "ghcr.io", "you/tiny"), MODEL, held()) is None


def refusal(policy: Policy, *found: Found, digest: str = MODEL) -> str:
    with pytest.raises(SignatureError) as caught:
        verify_signature(policy, REF, digest, held(*found))
    assert "cosign sign" in caught.value.hint and caught.value.status == 403
    return caught.value.message


def test_what_is_not_signed_as_asked_is_refused() -> None:
    """No signature, another's, another model's, a changed payload, and words about a model that do not sign it."""
    signer, stranger = Signer.make(), Signer.make()
    policy = policy_of(("ghcr.io/me", signer))
    good = signer.sign(payload(MODEL))
    assert "there is none" in refusal(policy)
    assert "another key" in refusal(policy, simple(payload(MODEL), stranger.sign(payload(MODEL))))
    assert "another digest" in refusal(policy, simple(payload(OTHER), signer.sign(payload(OTHER))))
    assert "damaged" in refusal(policy, simple(payload(MODEL) + b" ", good))
    assert "damaged" in refusal(policy, simple(payload(MODEL), good[:-1] + bytes([good[-1] ^ 1])))
    assert "damaged" in refusal(policy, bundled(bundle(signer, MODEL, tampered=True)))
    assert "does not sign" in refusal(
        policy, bundled(bundle(signer, MODEL, predicate="https://slsa.dev/provenance/v1"))
    )
    assert "another digest" in refusal(policy, bundled(bundle(signer, OTHER)))
    other_kind = payload(MODEL, type="atomic container signature")
    assert "another kind" in refusal(policy, simple(other_kind, signer.sign(other_kind)))
    twice = payload(MODEL)[:-1] + b',"critical":{}}'
    assert "no JSON" in refusal(policy, simple(twice, signer.sign(twice)))


def test_a_bad_signature_spoils_no_good_one() -> None:
    """One good signature among damaged and foreign ones is enough."""
    signer = Signer.make()
    bad, blobs = simple(payload(MODEL), b"x")
    bad["layers"] = [{"mediaType": "x", "digest": "sha256:../..", "size": 1}, 7, *bad["layers"]]
    good = simple(payload(MODEL), signer.sign(payload(MODEL)))
    verified = verify_signature(policy_of(("", signer)), REF, MODEL, held((bad, blobs), ({"layers": 3}, {}), good))
    assert verified is not None


def test_a_prefix_is_whole_parts_and_the_longest_decides() -> None:
    """ghcr.io/me is not ghcr.io/megan, docker.io has all its names, and a longer prefix has keys of its own."""
    team, mine = Signer.make(), Signer.make()
    policy = policy_of(("ghcr.io/me/", team), ("ghcr.io/me/own", mine), ("ai/", team))
    rules = {
        name: rule.prefix if (rule := policy.rule_for(parse_ref(name))) else None
        for name in (
            "ghcr.io/me/tiny", "ghcr.io/megan/tiny", "ghcr.io/me/own", "ghcr.io/me/own/x:v1", "ghcr.io/me/owner",
            "smollm2", "index.docker.io/ai/smollm2", "docker.io/aix/smollm2", "GHCR.IO/me/tiny", "ghcr.io:443/me/tiny",
        )
    }  # fmt: skip
    assert list(rules.values()) == [
        "ghcr.io/me", None, "ghcr.io/me/own", "ghcr.io/me/own", "ghcr.io/me",
        "docker.io/ai", "docker.io/ai", None, "ghcr.io/me", "ghcr.io/me",
    ]  # fmt: skip
    assert [full_prefix(text) for text in ("*", "", "docker.io", "oci://quay.io/x/", "huggingface.co/Org")] == [
        "", "", "docker.io", "quay.io/x", "hf.co/Org",
    ]  # fmt: skip


def test_several_keys_of_one_prefix_are_alternatives() -> None:
    """While a key is being replaced, signatures by the old and the new one both count."""
    old, new = Signer.make(), Signer.make("ed25519")
    policy = policy_of(("ghcr.io/me", old), ("ghcr.io/me/", new))
    assert len(policy.rules) == 1
    for signer in (old, new):
        assert verify_signature(policy, REF, MODEL, held(bundled(bundle(signer, MODEL)))) is not None


@pytest.mark.parametrize("name", ["hf.co/me/tiny", "ollama://tiny", "https://example.com/tiny.gguf"])
def test_sources_without_signatures_cannot_meet_a_policy(name: str) -> None:
    """A rule over names whose source has no signatures refuses them rather than letting them pass."""
    policy = policy_of(("*", Signer.make()))
    with pytest.raises(SignatureError, match="carries no signatures"):
        verify_signature(policy, parse_ref(name), MODEL, held())


def test_keys_are_read_or_refused_with_the_reason(tmp_path: Path) -> None:
    """A private key, a certificate, another curve, another text and a lost file each say what is wrong."""
    signer = Signer.make()
    assert read_key(signer.write(tmp_path / "cosign.pub")) == key_of(signer.public(), str(tmp_path / "cosign.pub"))
    wrong = {
        "private": signer.private(),
        "certificate": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "supported": Signer.make("p384").public(),
        "no public key": b"ssh-ed25519 AAAA",
        "no public": b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
        "more than": b"x" * (1 << 17),
    }
    for reason, data in wrong.items():
        (tmp_path / "key").write_bytes(data)
        with pytest.raises(ConfigError, match=reason) as caught:
            read_key(str(tmp_path / "key"))
        assert caught.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy([Signed("ghcr.io/me", str(tmp_path / "lost"))])


def test_what_a_bundle_signs_is_as_its_specification_says() -> None:
    """The bytes under a DSSE signature are those of the specification's own example."""
    signed = pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_openssl_makes_signatures_that_hold(tmp_path: Path, kind: str) -> None:
    """What another program signs with a key that it made itself is verified, in both kinds."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not here")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], check=True, capture_output=True, cwd=tmp_path)

    made = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "p256" else ["-algorithm", "ed25519"]
    run("genpkey", *made, "-out", "key.pem")
    run("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub")
    (tmp_path / "payload").write_bytes(payload(MODEL))
    if kind == "p256":
        run("dgst", "-sha256", "-sign", "key.pem", "-out", "signature", "payload")
    else:
        run("pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "payload", "-out", "signature")
    policy = load_policy([Signed("ghcr.io/me", str(tmp_path / "key.pub"))])
    found = simple(payload(MODEL), (tmp_path / "signature").read_bytes())
    assert verify_signature(policy, REF, MODEL, held(found)) is not None
    run("pkey", "-pubin", "-in", "key.pub", "-outform", "DER", "-out", "key.der")
    assert policy.rules[0].keys[0].fingerprint == digest_of((tmp_path / "key.der").read_bytes())


@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["critical", "image", "type", "docker-manifest-digest", "dsseEnvelope", "payload", "signatures",
                         "payloadType", "sig"]), inner, max_size=5),
    max_leaves=12).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_bytes_are_a_claim_or_refused(data: bytes) -> None:
    """Whatever a registry gives as a payload or bundle is read or refused as damaged; nothing else ever happens."""
    for read in (bundle_claim, lambda payload: simple_claim(payload, base64.b64encode(b"x").decode())):
        try:
            read(data)
        except ManifestError as error:
            assert error.hint


# Over HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def where(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.mark.parametrize("form", ["tag", "referrer"])
def test_a_pull_under_a_policy_needs_the_signature(where: World, tmp_path: Path, form: str) -> None:
    """A download is refused before anything large is fetched until its model is signed, and goes through then."""
    signer = Signer.make()
    policy = load_policy([Signed(f"{where.registry.host}/me", signer.write(tmp_path / "cosign.pub"))])
    digest = where.registry.model("me/tiny", b"weights" * 1000)
    ref = where.ref("me/tiny")
    downloads = Downloads(where.store, {"oci": where.source}, verify=verifier(policy, where.source), how=QUICK)
    try:
        refused = downloads.wait(downloads.start(ref).id, 20)
        assert refused.state == "failed" and refused.error is not None and "no good signature" in refused.error.message
        assert where.store.names() == [] and not any("/blobs/" in asked.path for asked in where.registry.asked)
        made = (
            simple(payload(digest), signer.sign(payload(digest))) if form == "tag" else bundled(bundle(signer, digest))
        )
        attach(where.registry, "me/tiny", digest, made, by=form)
        done = downloads.wait(downloads.start(ref).id, 20)
        assert (done.state, done.digest) == ("done", digest)
    finally:
        downloads.close()


def test_a_signed_index_vouches_for_its_manifests(where: World) -> None:
    """Where a tag points to an index, its signature counts for the manifest that was picked from it, and no other."""
    signer = Signer.make()
    policy = policy_of(("*", signer))
    inside, outside = where.registry.model("me/tiny", b"a", tag="a"), where.registry.model("me/tiny", b"b", tag="b")
    entry = {"mediaType": MANIFEST, "digest": inside, "size": len(where.registry.manifests[f"me/tiny@{inside}"])}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    where.registry.manifests["me/tiny:latest"] = where.registry.manifests[f"me/tiny@{digest_of(index)}"] = index
    attach(where.registry, "me/tiny", digest_of(index), bundled(bundle(signer, digest_of(index))), by="referrer")
    verified = find_signature(policy, where.source, where.ref("me/tiny"), inside)
    assert verified is not None and verified.digest == digest_of(index)
    with pytest.raises(SignatureError):
        find_signature(policy, where.source, where.ref("me/tiny"), outside)


def test_a_registry_that_cannot_be_asked_lets_nothing_in(where: World) -> None:
    """When signatures cannot be looked for, that is an error of the registry and not a pass."""
    digest = where.registry.model("me/tiny", b"a")
    where.registry.faults.append(Fault(path=".sig", times=-1, status=503))
    with pytest.raises(Unavailable):
        verifier(policy_of(("*", Signer.make())), where.source)(where.ref("me/tiny"), digest)


def test_a_huge_payload_is_not_read(where: World) -> None:
    """A signature that claims to be of megabytes is refused by its size."""
    signer = Signer.make()
    digest = where.registry.model("me/tiny", b"a")
    manifest, blobs = simple(payload(digest), signer.sign(payload(digest)))
    manifest["layers"][0]["size"] = 1 << 30
    attach(where.registry, "me/tiny", digest, (manifest, blobs), by="tag")
    with pytest.raises((SignatureError, RegistryError), match="bytes"):
        verifier(policy_of(("*", signer)), where.source)(where.ref("me/tiny"), digest)
