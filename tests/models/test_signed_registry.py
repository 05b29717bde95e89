"""From another tool's store to a real registry, signed there, and pulled elsewhere under a policy."""

from __future__ import annotations

import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from corral.config.settings import Signed
from corral.descriptors import INDEX, MANIFEST, Descriptor, descriptor_from, digest_of
from corral.models.fetching.downloads import Downloads
from corral.models.importing import import_model, list_models
from corral.models.signing.lookup import verifier
from corral.models.signing.policy import load_policy
from corral.models.unpack import place
from corral.refs_parse import parse_ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.oci_push import PushBlob
from corral.store.store import Store
from support.artifacts import new_store
from support.docker_registry import docker_registry
from support.ggufs import write_chain
from support.peer_stores import write_ollama
from support.signing import BUNDLE, Signer, bundle, bundled, payload, simple

pytestmark = pytest.mark.registry


def opened(path: Path) -> BinaryIO:
    return path.open("rb")


def push_stored(registry: OciRegistry, store: Store, name: str, to: str) -> str:
    """Sends a stored model to a registry as it is; its digest there."""
    named = store.lookup(name)
    assert named is not None
    parts = store.whole(named.descriptor)[1:]
    blobs = [PushBlob(part, partial(opened, store.blob(part.digest).path)) for part in parts]
    manifest = store.read_bytes(named.descriptor.digest)
    return registry.push(parse_ref(to), manifest, named.descriptor.media_type, blobs)


def push_signature(registry: OciRegistry, to: str, found: tuple[dict[str, Any], dict[str, bytes]]) -> Descriptor:
    """Sends a signature manifest and its blobs."""
    manifest, contents = found
    parts = [descriptor_from(each) for each in [manifest["config"], *manifest["layers"]]]
    blobs = [PushBlob(part, partial(io.BytesIO, contents[part.digest])) for part in parts]
    data = json.dumps(manifest).encode()
    registry.push(parse_ref(to), data, MANIFEST, blobs)
    return Descriptor(MANIFEST, digest_of(data), len(data))


@pytest.mark.parametrize("form", ["tag", "referrer"])
def test_imported_pushed_signed_and_pulled(short_tmp: Path, form: str) -> None:
    """A model of Ollama's store is pushed and, once it is signed there, pulled elsewhere; its file is then the same."""
    signer = Signer.make()
    gguf = write_chain(short_tmp / "m.gguf", ["a", "b"]).read_bytes()
    write_ollama(short_tmp / "o", [("model", gguf), ("system", b"Be brief.")])
    first, second = new_store(short_tmp / "1"), new_store(short_tmp / "2")
    with docker_registry(short_tmp / "r") as host, Egress(EgressPolicy(proxy="")) as egress:
        registry = OciRegistry(egress, Auth(egress, short_tmp / "config", env={"PATH": os.environ["PATH"]}))
        policy = load_policy([Signed(f"{host}/me", signer.write(short_tmp / "cosign.pub"))])
        downloads = Downloads(second, {"oci": registry}, verify=verifier(policy, registry))
        try:
            (model,) = list_models("ollama", place=short_tmp / "o")
            imported = import_model(first, model)
            name = f"{host}/me/tiny"
            digest = push_stored(registry, first, imported.name, f"{name}:v1")
            assert digest == imported.digest
            refused = downloads.wait(downloads.start(parse_ref(f"{name}:v1")).id, 30)
            assert refused.error is not None and refused.error.code == "signature"
            tag = digest.replace(":", "-")
            if form == "tag":
                push_signature(registry, f"{name}:{tag}.sig", simple(payload(digest), signer.sign(payload(digest))))
            else:
                sent = push_signature(registry, f"{name}:bundle", bundled(bundle(signer, digest)))
                entry = {**sent.as_data(), "artifactType": BUNDLE}
                index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
                registry.push(parse_ref(f"{name}:{tag}"), index, INDEX, [])
            done = downloads.wait(downloads.start(parse_ref(f"{name}:v1")).id, 30)
            assert (done.state, done.digest) == ("done", digest)
        finally:
            downloads.close()
    with second.hold(digest):
        assert place(second, digest).main.read_bytes() == gguf
