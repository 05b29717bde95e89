"""Whose signature a model must have: the policy, and checking it against what a registry keeps beside the model.

A policy names prefixes of full names and a public key for each. A model under such a prefix is let in only with a
signature by one of the keys over the digest of its manifest, or of an index that leads to it. Nothing is asked of a
transparency log: the key is the trust. What cannot be checked is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from corral.config.settings import Signed
from corral.descriptors import (
    Descriptor,
    check_digest,
    descriptor_from,
)
from corral.errors import DigestMismatch, ManifestError, NotInRegistry, SignatureError
from corral.lazy_dataclass import dataclass
from corral.models.signing.formats import (
    BUNDLE_PREFIX,
    SIGNATURE_NOTE,
    SIMPLE_SIGNING,
    Claim,
    bundle_claim,
    simple_claim,
)
from corral.models.signing.keys import PublicKey, read_key
from corral.refs import Ref
from corral.registry.policy import canonical

MAX_ATTACHED: Final = 32
MAX_LAYERS: Final = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """Names under `prefix` need a signature by one of `keys`."""

    prefix: str  # as in full names, without a slash at its end; "" is every name
    keys: tuple[PublicKey, ...]

    def covers(self, name: str) -> bool:
        """Whether `name`, without tag and digest, is under the prefix by whole parts: ghcr.io/me, not ghcr.io/meg."""
        return not self.prefix or name == self.prefix or name.startswith(f"{self.prefix}/")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules, longest prefix first. Of several that cover a name, the longest alone decides."""

    rules: tuple[Rule, ...] = ()

    def rule_for(self, ref: Ref) -> Rule | None:
        host = ref.host.lower().removesuffix(":443")
        name = ref.repository if ref.kind in ("url", "file") else f"{canonical(host)}/{ref.repository}"
        return next((rule for rule in self.rules if rule.covers(name)), None)


def load_policy(required: Iterable[Signed]) -> Policy:
    """The policy that the configuration asks for. Entries with the same prefix are several keys, any of which will do.

    Raises ConfigError when a key cannot be read or is none.
    """
    keys: dict[str, list[PublicKey]] = {}
    for each in required:
        keys.setdefault(full_prefix(each.prefix), []).append(read_key(each.key))
    rules = [Rule(prefix, tuple(found)) for prefix, found in keys.items()]
    return Policy(tuple(sorted(rules, key=lambda rule: (-len(rule.prefix), rule.prefix))))


def full_prefix(text: str) -> str:
    """`text` as full names begin: `ai/` is docker.io/ai, `*` every name."""
    prefix = text.strip().removeprefix("oci://").removeprefix("docker://").removesuffix("*").rstrip("/")
    if not prefix or "://" in prefix:
        return prefix
    host, slash, rest = prefix.partition("/")
    if not ("." in host or ":" in host or host == "localhost"):
        return f"docker.io/{prefix}"
    return canonical(host) + slash + rest


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds."""

    digest: str
    prefix: str  # the rule's
    key: str  # the fingerprint
    where: str  # the key's file
    form: str  # "cosign" or "bundle"
    signed_as: str  # what the signer called it, where that is told

    @property
    def annotations(self) -> dict[str, str]:
        """For the store's index."""
        return {"corral.signed-by": self.key}


@dataclass(frozen=True, slots=True)
class Attached:
    """One manifest with signatures, and how to read its small blobs."""

    manifest: Mapping[str, Any]
    blob: Callable[[Descriptor], bytes]


Fetch = Callable[[Ref, str], Iterable[Attached]]
"""`fetch(ref, digest)` gives what the registry of `ref` keeps as signatures of `digest`. Raises RegistryError."""


def verify_signature(
    policy: Policy, ref: Ref, manifest_digest: str, fetch_signature: Fetch, *, also: Sequence[str] = ()
) -> Verified | None:
    """The signature for which `policy` lets `manifest_digest` in as `ref`; None when it asks for none.

    `also` has the digests of indexes that were followed to the manifest. Raises SignatureError when there is no good
    signature, RegistryError when it cannot be looked for.
    """
    rule = policy.rule_for(ref)
    if rule is None:
        return None
    if ref.kind != "oci":
        raise SignatureError(
            f"{ref.name} must be signed, and what comes from there carries no signatures",
            hint=f"take it from an OCI registry, or take {rule.prefix or 'the rule'} out of require_signed",
        )
    reasons: list[str] = []
    for digest in dict.fromkeys([check_digest(manifest_digest), *also]):
        for claim in _claims(fetch_signature(ref, digest), reasons):
            if digest not in claim.digests:
                reasons.append(f"one is for another digest, {', '.join(claim.digests)[:200] or 'none'}")
            elif key := _signer(rule, claim):
                return Verified(digest, rule.prefix, key.fingerprint, key.where, claim.form, claim.signed_as)
            else:
                reasons.append("one is by another key, or damaged")
    raise _refused(rule, ref, manifest_digest, reasons)


def _signer(rule: Rule, claim: Claim) -> PublicKey | None:
    pairs = ((key, signature) for key in rule.keys for signature in claim.signatures)
    return next((key for key, signature in pairs if key.verifies(signature, claim.message)), None)


def _claims(attached: Iterable[Attached], reasons: list[str]) -> Iterator[Claim]:
    """Every claim that can be read; what cannot goes into `reasons`, for one bad signature spoils no good one."""
    for number, each in enumerate(attached):
        if number >= MAX_ATTACHED:
            reasons.append(f"there are more than {MAX_ATTACHED}, and only so many are looked at")
            return
        layers = each.manifest.get("layers")
        for layer in layers[:MAX_LAYERS] if isinstance(layers, list) else []:
            try:
                claim = _claim(descriptor_from(layer), each.blob)
            except (ManifestError, DigestMismatch, NotInRegistry) as error:
                reasons.append(f"one cannot be used: {error.message}")
                continue
            if claim is not None:
                yield claim


def _claim(layer: Descriptor, blob: Callable[[Descriptor], bytes]) -> Claim | None:
    if layer.media_type == SIMPLE_SIGNING:
        signature = layer.annotations.get(SIGNATURE_NOTE)
        return None if signature is None else simple_claim(blob(layer), signature)
    return bundle_claim(blob(layer)) if layer.media_type.startswith(BUNDLE_PREFIX) else None


def _refused(rule: Rule, ref: Ref, digest: str, reasons: list[str]) -> SignatureError:
    keys = ", ".join(f"{key.where} ({key.fingerprint[:19]}…)" for key in rule.keys)
    found = "; ".join(dict.fromkeys(reasons)) or "there is none"
    where = f"{ref.host}/{ref.repository}@{digest}"
    return SignatureError(
        f"{ref.name} has no good signature for {digest[:19]}…: {found}",
        hint=f"require_signed wants {rule.prefix or 'every model'} signed by {keys}; its owner signs with: "
        f"cosign sign --key cosign.key {where}",
        digest=digest,
        reasons=reasons[:20],
    )
