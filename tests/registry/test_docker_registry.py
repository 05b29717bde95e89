"""A real registry: pushing, resolving, ranges, passwords, bearer tokens."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.descriptors import INDEX, MANIFEST, Descriptor, digest_of
from corral.errors import DigestMismatch, NotAllowedThere, NotInRegistry
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.oci_push import PushBlob
from support.docker_registry import PASSWORD, USER, docker_registry, needs, token_server, with_passwords

pytestmark = pytest.mark.registry

SMALL = b'{"format":"gguf"}'
LARGE = os.urandom(1 << 20) * 70  # more than one chunk


def described(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, digest_of(data), len(data))


def blob(data: bytes, mount_from: str = "") -> PushBlob:
    return PushBlob(described(data, "application/octet-stream"), lambda: io.BytesIO(data), mount_from)


def manifest_of(*layers: bytes) -> bytes:
    config = described(SMALL, "application/vnd.docker.ai.model.config.v0.1+json")
    entries = [described(layer, "application/vnd.docker.ai.gguf.v3").as_data() for layer in layers]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.as_data(), "layers": entries}
    ).encode()


@contextmanager
def client(home: Path, **policy: object) -> Iterator[OciRegistry]:
    with Egress(EgressPolicy(proxy="", **policy)) as egress:  # type: ignore[arg-type]
        yield OciRegistry(egress, Auth(egress, home / "config", env={"HOME": str(home), "PATH": os.environ["PATH"]}))


def read(registry: OciRegistry, ref: Ref, data: bytes, offset: int = 0, length: int | None = None) -> bytes:
    body = registry.opener(ref, described(data, ""))(offset, length)
    view, got = memoryview(bytearray(1 << 20)), bytearray()
    try:
        while count := body.readinto(view):
            got += view[:count]
    finally:
        body.close()
    return bytes(got)


def test_round_trip(short_tmp: Path) -> None:
    """What is pushed resolves to the same manifest, and its blobs come whole and in ranges."""
    with docker_registry(short_tmp / "r") as host, client(short_tmp) as registry:
        ref, manifest, seen = parse_ref(f"{host}/org/model:v1"), manifest_of(LARGE), []
        digest = registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(LARGE)], lambda *step: seen.append(step))
        assert digest == digest_of(manifest)
        steps = [done for which, done, _ in seen if which == digest_of(LARGE)]
        assert steps == sorted(steps)
        assert steps[-1] == len(LARGE)
        found = registry.resolve(ref)
        assert (found.manifest, found.manifest_type) == (manifest, MANIFEST)
        assert [(each.digest, each.size) for each in found.blobs] == [
            (digest_of(SMALL), len(SMALL)), (digest_of(LARGE), len(LARGE)),
        ]  # fmt: skip
        assert read(registry, ref, LARGE) == LARGE
        assert read(registry, ref, LARGE, 100, 50) == LARGE[100:150]
        assert read(registry, ref, LARGE, len(LARGE) - 7) == LARGE[-7:]
        assert registry.head(ref) == described(manifest, MANIFEST)
        assert registry.tags(ref) == ["v1"]
        assert registry.catalog(host) == ["org/model"]
        assert registry.resolve(parse_ref(f"{host}/org/model@{digest}")).manifest == manifest


def test_nothing_is_sent_twice(short_tmp: Path) -> None:
    """Blobs that the registry has are not sent again, and those of another repository there are mounted."""

    def never() -> io.BytesIO:
        raise AssertionError("it was opened")

    with docker_registry(short_tmp / "r") as host, client(short_tmp) as registry:
        first, second = parse_ref(f"{host}/org/model:v1"), parse_ref(f"{host}/org/other:v1")
        manifest = manifest_of(SMALL * 2)
        registry.push(first, manifest, MANIFEST, [blob(SMALL), blob(SMALL * 2)])
        kept = [PushBlob(each.descriptor, never) for each in (blob(SMALL), blob(SMALL * 2))]
        registry.push(parse_ref(f"{host}/org/model:v2"), manifest, MANIFEST, kept)
        assert registry.tags(first) == ["v1", "v2"]
        mounted = [PushBlob(each.descriptor, never, "org/model") for each in kept]
        registry.push(second, manifest, MANIFEST, mounted)
        assert registry.resolve(second).manifest == manifest


def test_index(short_tmp: Path) -> None:
    """An index is followed to one manifest, and that is said."""
    with docker_registry(short_tmp / "r") as host, client(short_tmp) as registry:
        manifest = manifest_of(SMALL * 2)
        digest = registry.push(Ref("oci", host, "org/model", ""), manifest, MANIFEST, [blob(SMALL), blob(SMALL * 2)])
        entry = described(manifest, MANIFEST).as_data()
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        registry.push(parse_ref(f"{host}/org/model:all"), index, INDEX, [])
        found = registry.resolve(parse_ref(f"{host}/org/model:all"))
        assert found.manifest == manifest
        assert digest_of(found.manifest) == digest
        assert "any platform" in found.notes[0]


def test_missing(short_tmp: Path) -> None:
    """What is not there is NotInRegistry, be it a repository, a tag or a blob; a file that changed is found out."""
    with docker_registry(short_tmp / "r") as host, client(short_tmp) as registry:
        ref = parse_ref(f"{host}/org/model:v1")
        with pytest.raises(NotInRegistry, match="MANIFEST_UNKNOWN"):
            registry.resolve(ref)
        assert registry.head(ref) is None
        with pytest.raises(NotInRegistry):
            registry.tags(ref)
        assert registry.referrers(ref, digest_of(b"")) == []
        with pytest.raises(NotInRegistry):
            registry.opener(ref, described(LARGE, ""))(0, None)
        wrong = PushBlob(described(SMALL, ""), lambda: io.BytesIO(SMALL[::-1]))
        with pytest.raises(DigestMismatch):
            registry.push(ref, manifest_of(SMALL), MANIFEST, [wrong])


def test_passwords(short_tmp: Path) -> None:
    """Without credentials, or with wrong ones, a registry with passwords lets nothing through; login mends it."""
    root = short_tmp / "r"
    with docker_registry(root, with_passwords(root)) as host, client(short_tmp) as registry:
        ref, manifest = parse_ref(f"{host}/org/model:v1"), manifest_of(LARGE)
        with pytest.raises(NotAllowedThere) as caught:
            registry.resolve(ref)
        assert caught.value.hint == f"corral login {host}"
        with pytest.raises(NotAllowedThere):
            registry.auth.login(host, USER, "wrong")
        assert registry.auth.credentials(host) is None
        registry.auth.login(host, USER, PASSWORD)
        registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(LARGE)])
        assert registry.resolve(ref).manifest == manifest
        own = short_tmp / "config" / "auth.json"
        assert own.stat().st_mode & 0o777 == 0o600
        assert PASSWORD not in own.read_text()
        assert registry.auth.logout(host)
        assert not registry.auth.logout(host)
        with pytest.raises(NotAllowedThere):
            registry.resolve(ref)


def test_tokens(short_tmp: Path) -> None:
    """Tokens are fetched per repository, kept, and renewed when they run out; pushing asks for the right to."""
    with token_server(short_tmp) as tokens, docker_registry(short_tmp / "r", tokens.auth) as host:
        policy = {"realms": {host: (tokens.authority,)}}
        with client(short_tmp, **policy) as registry:
            ref, manifest = parse_ref(f"{host}/org/model:v1"), manifest_of(LARGE)
            with pytest.raises(NotAllowedThere):
                registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(LARGE)])
            with pytest.raises(NotAllowedThere):
                registry.auth.login(host, USER, "wrong")
            registry.auth.login(host, USER, PASSWORD)
            tokens.given.clear()
            registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(LARGE)])
            assert registry.resolve(ref).manifest == manifest
            assert registry.resolve(ref).manifest == manifest
            actions = [access[0]["actions"] for access in tokens.given]
            assert actions == [["pull", "push"], ["pull"]]
            registry.catalog(host)


def test_token_that_runs_out(short_tmp: Path) -> None:
    """A token that the registry no longer takes is renewed without the caller's noticing."""
    with (
        token_server(short_tmp) as tokens,
        docker_registry(short_tmp / "r", tokens.auth) as host,
        client(short_tmp, realms={host: (tokens.authority,)}) as registry,
    ):
        registry.auth.login(host, USER, PASSWORD)
        ref, manifest = parse_ref(f"{host}/org/model:v1"), manifest_of(SMALL * 2)
        tokens.life_s = -100  # docker-registry allows a minute
        with pytest.raises(NotAllowedThere):
            registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(SMALL * 2)])
        tokens.life_s = 60
        registry.push(ref, manifest, MANIFEST, [blob(SMALL), blob(SMALL * 2)])
        assert registry.resolve(ref).manifest == manifest


def test_untrusted_realm(short_tmp: Path) -> None:
    """A token server on another host, unless it is known or configured, does not get to see the credentials."""
    with token_server(short_tmp) as tokens, docker_registry(short_tmp / "r", tokens.auth) as host:
        with client(short_tmp, realms={host: (tokens.authority,)}) as registry:
            registry.auth.login(host, USER, PASSWORD)
        # It may be asked at all, without credentials, only because its address is allowed.
        free = {"private_addresses": (tokens.authority,), "insecure": (tokens.authority,)}
        assert tokens.server is not None
        tokens.server.asked.clear()
        with client(short_tmp, **free) as registry, pytest.raises(NotAllowedThere):
            registry.push(parse_ref(f"{host}/org/model:v1"), manifest_of(), MANIFEST, [blob(SMALL)])
        assert tokens.server.asked
        assert not any("authorization" in each.headers for each in tokens.server.asked)


def test_skopeo_agrees(short_tmp: Path) -> None:
    """skopeo reads what Corral pushed, and Corral what skopeo copied."""
    needs("skopeo")
    with docker_registry(short_tmp / "r") as host, client(short_tmp) as registry:
        manifest = manifest_of(SMALL * 2)
        registry.push(parse_ref(f"{host}/org/model:v1"), manifest, MANIFEST, [blob(SMALL), blob(SMALL * 2)])
        seen = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/org/model:v1"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert seen.stdout == manifest
        subprocess.run(
            ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
             f"docker://{host}/org/model:v1", f"docker://{host}/org/copy:v1"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert registry.resolve(parse_ref(f"{host}/org/copy:v1")).manifest == manifest
