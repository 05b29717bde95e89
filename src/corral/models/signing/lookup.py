"""Looking for a model's signatures in its registry, where cosign puts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from corral.descriptors import DOCKER_INDEX, INDEX, MANIFEST, Descriptor, decode_json, descriptor_from, digest_of
from corral.errors import DigestMismatch, ManifestError, NotInRegistry, SignatureError
from corral.models.signing.formats import SIGNS
from corral.models.signing.policy import Attached, Fetch, Policy, Verified, verify_signature
from corral.refs import Ref

MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_INDEX_DEPTH: Final = 2
MAX_ENTRIES: Final = 64
MAX_NESTED: Final = 4


class Attachments(Protocol):
    """What of a registry is needed: `registry.oci.OciRegistry` has it."""

    def manifest(self, ref: Ref) -> tuple[bytes, str]: ...

    def referrers(self, ref: Ref, digest: str, artifact_type: str = "") -> list[Descriptor]: ...

    def blob(self, ref: Ref, descriptor: Descriptor, limit: int = ...) -> bytes: ...


def fetch_from(registry: Attachments) -> Fetch:
    """Looks for signatures where cosign puts them: at the tag `sha256-<hex>.sig`, then among the referrers."""

    def fetch(ref: Ref, digest: str) -> Iterator[Attached]:
        def blob(descriptor: Descriptor) -> bytes:
            return registry.blob(ref, descriptor, MAX_PAYLOAD_BYTES)

        places = [Ref("oci", ref.host, ref.repository, digest.replace(":", "-") + ".sig")]
        places += [
            Ref("oci", ref.host, ref.repository, digest=referrer.digest)
            for referrer in registry.referrers(ref, digest)
            if referrer.media_type == MANIFEST and _may_sign(referrer)
        ]
        for place in places:
            try:
                manifest = decode_json(registry.manifest(place)[0], f"the signature {place}")
            except (NotInRegistry, ManifestError, DigestMismatch):
                continue
            yield Attached(manifest, blob)

    return fetch


def _may_sign(referrer: Descriptor) -> bool:
    """Provenance and bills of materials can be many and large; bundles say in their annotations what they are about."""
    return referrer.annotations.get("dev.sigstore.bundle.predicateType", SIGNS) == SIGNS


def verifier(policy: Policy, registry: Attachments) -> Callable[[Ref, str], None]:
    """`verify(ref, digest)` for downloads and imports, which raises when `policy` does not let the model in.

    Where a tag points to an index, its signature counts for the manifests in it.
    """

    def verify(ref: Ref, digest: str) -> None:
        find_signature(policy, registry, ref, digest)

    return verify


def find_signature(policy: Policy, registry: Attachments, ref: Ref, digest: str) -> Verified | None:
    """The signature for which `policy` lets `digest` in as `ref`, as `verify_signature`, indexes followed."""
    fetch = fetch_from(registry)
    try:
        return verify_signature(policy, ref, digest, fetch)
    except SignatureError:
        if ref.kind != "oci" or not (above := _indexes_above(registry, ref, digest)):
            raise
    return verify_signature(policy, ref, digest, fetch, also=above)


def _indexes_above(registry: Attachments, ref: Ref, digest: str) -> list[str]:
    """The index that `ref` points to, when `digest` can be reached from it."""
    try:
        top, _ = registry.manifest(ref)
        found = _reaches(registry, ref, top, digest, MAX_INDEX_DEPTH)
    except (NotInRegistry, ManifestError, DigestMismatch):
        return []
    return [digest_of(top)] if found else []


def _reaches(registry: Attachments, ref: Ref, data: bytes, digest: str, depth: int) -> bool:
    entries = decode_json(data, "the index").get("manifests")
    inside = [descriptor_from(entry) for entry in entries[:MAX_ENTRIES]] if isinstance(entries, list) else []
    if any(each.digest == digest for each in inside):
        return True
    nested = [each for each in inside if each.media_type in (INDEX, DOCKER_INDEX)][:MAX_NESTED] if depth else []
    return any(
        _reaches(
            registry,
            ref,
            registry.manifest(Ref("oci", ref.host, ref.repository, digest=each.digest))[0],
            digest,
            depth - 1,
        )
        for each in nested
    )
