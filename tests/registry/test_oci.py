"""OCI registries that lie, break off and differ from each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.descriptors import MANIFEST, MAX_MANIFEST_BYTES, Descriptor, digest_of
from corral.errors import (
    CorralError,
    DigestMismatch,
    EgressRefused,
    ManifestError,
    NotAllowedThere,
    NotInRegistry,
    RateLimited,
    RegistryError,
    Unavailable,
)
from corral.refs_parse import parse_ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.oci_index import pick
from support.raw_http import Asked, RawServer, Script, answer, at, json_answer, serving
from support.scripted_registry import CONFIG, entry, index, layer, manifest, registry


def resolve(data: bytes, *, pinned: str = "", **headers: Any) -> Any:
    """What a registry that answers every request for a manifest with `data` makes of a reference."""
    with registry(lambda asked: answer(200, data, **headers)) as (client, server):
        return client.resolve(parse_ref(f"{server.authority}/a/b{pinned}"))


def test_parts_of_a_model() -> None:
    """A manifest gives its blobs once each, with sizes and titles; the media type is the body's own."""
    weights = layer(b"w", annotations={"org.cncf.model.filepath": "model.gguf"})
    found = resolve(manifest(weights, weights), content_type="text/plain")
    assert [(each.digest, each.size, each.title) for each in found.blobs] == [
        (digest_of(b"{}"), 2, ""), (digest_of(b"w"), 1, "model.gguf"),
    ]  # fmt: skip
    assert found.manifest_type == MANIFEST


def test_any_artifact_type() -> None:
    """A manifest of any artifact type resolves; what it means is not the registry's business."""
    data = json.dumps({"artifactType": "application/x.y", "config": CONFIG, "layers": [layer(b"w")]}).encode()
    assert resolve(data).manifest == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "neither"),
        (manifest(manifests=[]), "at once"),
        (index(entry(b"x"), layers=[]), "at once"),
        (index(), "no model"),
        (index(*[entry(b"x")] * 1001), "no list"),
        (index(entry(b"x", "unknown", "unknown")), "no model"),
        (manifest({"digest": "sha256:../../etc/passwd", "size": 1}), "no digest"),
        (manifest({"digest": "sha512:" + "a" * 128, "size": 1}), "no digest"),
        (manifest({"digest": digest_of(b""), "size": -1}), "size"),
        (manifest({"digest": digest_of(b""), "size": 1 << 60}), "size"),
        (manifest({"digest": digest_of(b""), "size": "1"}), "size"),
        (manifest(layer(b"w"), layer(b"w", size=5)), "two sizes"),
        (manifest(5), "object"),
        (json.dumps({"config": CONFIG, "layers": {"a": 1}}).encode(), "no list"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "too long"),
    ],
    ids=lambda value: value[:30].decode() if isinstance(value, bytes) else value,
)
def test_damaged_manifests(data: bytes, why: str) -> None:
    """A manifest that is damaged, absurd or two things at once is refused with the reason."""
    with pytest.raises(ManifestError, match=why):
        resolve(data)


def test_manifest_without_an_end() -> None:
    """A manifest that never ends is given up at the limit, not held in memory."""
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    raw = answer(length=False, transfer_encoding="chunked", body=chunk * 8)
    with registry(lambda asked: raw) as (client, server), pytest.raises(ManifestError, match="too long"):
        client.resolve(parse_ref(f"{server.authority}/a/b"))


def test_wrong_manifests() -> None:
    """A manifest that is not what was pinned, or not what the server itself says it is, is refused."""
    data = manifest(layer(b"w"))
    assert resolve(data, pinned=f"@{digest_of(data)}").manifest == data
    with pytest.raises(DigestMismatch):
        resolve(data, pinned=f"@{digest_of(b'other')}")
    with pytest.raises(DigestMismatch):
        resolve(data, docker_content_digest=digest_of(b"other"))


def test_index_for_this_machine() -> None:
    """Of an index, the manifest for this processor is taken, else one for none, else the first; attestations never."""
    entries = [
        entry(b"att", "unknown", "unknown"),
        entry(b"ref", "linux", "amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        entry(b"arm", "linux", "arm64"),
        entry(b"plain"),
        entry(b"amd", "linux", "amd64"),
    ]
    decoded = json.loads(index(*entries))
    assert pick(decoded, "x", "amd64")[0].digest == digest_of(b"amd")
    assert pick(decoded, "x", "arm64")[0].digest == digest_of(b"arm")
    assert pick(decoded, "x", "riscv64")[0].digest == digest_of(b"plain")
    assert pick({"manifests": entries[:3]}, "x", "riscv64")[0].digest == digest_of(b"arm")


def test_indexes_in_indexes() -> None:
    """Indexes may be in indexes, but not without an end, and sizes in them must be right."""
    leaf = manifest(layer(b"w"))
    known = {digest_of(leaf): leaf}
    top = leaf
    tops = []
    for _ in range(5):
        top = index(entry(top))
        known[digest_of(top)] = top
        tops.append(digest_of(top))
    liar = index({**entry(leaf), "size": 3})
    known[digest_of(liar)] = liar

    def script(asked: Asked) -> bytes:
        data = known.get(asked.path.rpartition("/")[2])
        return answer(200, data) if data else answer(404)

    with registry(script) as (client, server):
        found = client.resolve(parse_ref(f"{server.authority}/a/b@{tops[1]}"))
        assert found.manifest == leaf
        assert len(found.notes) == 2
        with pytest.raises(ManifestError, match="in each other"):
            client.resolve(parse_ref(f"{server.authority}/a/b@{tops[4]}"))
        with pytest.raises(ManifestError, match="not 3"):
            client.resolve(parse_ref(f"{server.authority}/a/b@{digest_of(liar)}"))


@pytest.mark.parametrize(
    ("status", "error", "again_s"),
    [
        (401, NotAllowedThere, None),
        (403, NotAllowedThere, None),
        (404, NotInRegistry, None),
        (410, NotInRegistry, None),
        (429, RateLimited, 9),
        (400, RegistryError, None),
        (500, Unavailable, 9),
        (503, Unavailable, 9),
    ],
)
def test_refusals(status: int, error: type[CorralError], again_s: int | None) -> None:
    """Each status is the error that says what to do, with the server's own words made harmless."""
    body = {"errors": [{"code": "CODE", "message": "why\x1b[31m\nnot"}]}
    with registry(lambda asked: json_answer(body, status, retry_after="9")) as (client, server):
        with pytest.raises(error) as caught:
            client.resolve(parse_ref(f"{server.authority}/a/b"))
        assert type(caught.value) is error
        assert "CODE why [31m not" in caught.value.message
        assert caught.value.retry_after_s == again_s
        assert caught.value.hint


# Blobs.

DATA = bytes(range(256)) * 100
BLOB = Descriptor("application/x", digest_of(DATA), len(DATA))


def ranged(asked: Asked) -> bytes:
    wanted = asked.headers.get("range", "").removeprefix("bytes=")
    if not wanted:
        return answer(200, DATA)
    first, _, last = wanted.partition("-")
    end = int(last) + 1 if last else len(DATA)
    return answer(206, DATA[int(first) : end], content_range=f"bytes {first}-{end - 1}/{len(DATA)}")


def read(client: OciRegistry, server: RawServer, offset: int, length: int | None) -> tuple[int, int, int | None, bytes]:
    body = client.opener(parse_ref(f"{server.authority}/a/b"), BLOB)(offset, length)
    view, got = memoryview(bytearray(1000)), bytearray()
    try:
        while count := body.readinto(view):
            got += view[:count]
    finally:
        body.close()
    return body.status, body.offset, body.total, bytes(got)


def test_ranges() -> None:
    """A blob is opened anywhere; a server that ignores ranges is seen by the offset of its answer."""
    with registry(ranged) as (client, server):
        assert read(client, server, 0, None) == (200, 0, len(DATA), DATA)
        assert read(client, server, 10, 5) == (206, 10, len(DATA), DATA[10:15])
        assert read(client, server, 10, None) == (206, 10, len(DATA), DATA[10:])
        assert read(client, server, 0, 5) == (206, 0, len(DATA), DATA[:5])
    with registry(lambda asked: answer(200, DATA)) as (client, server):
        assert read(client, server, 10, 5) == (200, 0, len(DATA), DATA)


@pytest.mark.parametrize("said", ["bytes 0-4/100", "bytes 11-15/100", "", "chunks 10-14/100", "bytes x"])
def test_wrong_ranges(said: str) -> None:
    """An answer for another range than the one asked for is refused."""
    script: Script = lambda asked: answer(206, DATA[:5], content_range=said)  # noqa: E731
    with registry(script) as (client, server), pytest.raises(Unavailable, match="another range"):
        read(client, server, 10, 5)


def test_redirect_to_storage() -> None:
    """A blob on another server comes from there, range and all, and each opening asks the registry anew."""
    with serving(ranged) as storage:
        free = {"private_addresses": (storage.authority,), "insecure": (storage.authority,)}
        with registry(lambda asked: answer(307, location=f"{storage.url}/x?sig=1"), **free) as (client, server):
            assert read(client, server, 10, 5)[3] == DATA[10:15]
            assert read(client, server, 20, 5)[3] == DATA[20:25]
            assert len([each for each in server.asked if "blobs" in each.path]) == 2
        strict = registry(lambda asked: answer(307, location=f"{storage.url}/x?sig=1"))
        with strict as (client, server), pytest.raises(EgressRefused):
            read(client, server, 10, 5)


def test_small_blobs_are_checked() -> None:
    """A small blob is read whole, bounded, and compared with its digest."""
    with registry(lambda asked: answer(200, DATA[::-1])) as (client, server):
        ref = parse_ref(f"{server.authority}/a/b")
        with pytest.raises(DigestMismatch):
            client.blob(ref, BLOB)
        with pytest.raises(ManifestError):
            client.blob(ref, BLOB, limit=10)
        with pytest.raises(ManifestError, match="too long"):
            client.blob(ref, Descriptor("x", BLOB.digest, 5), limit=10)


def test_mirrors() -> None:
    """Mirrors are asked first; what they do not have, or have damaged, comes from the registry itself."""
    data, evil = manifest(layer(b"w")), manifest(layer(b"evil"))
    ours = at({f"GET /v2/a/b/manifests/{name}": answer(200, data) for name in ("latest", digest_of(data))})
    with (
        serving(lambda asked: answer(503)) as first,
        serving(lambda asked: answer(200, evil if "sha256" in asked.path else data)) as second,
        registry(ours) as (_, server),
        Egress(EgressPolicy(proxy="", mirrors={server.authority: (first.authority, second.authority)})) as egress,
    ):
        client = OciRegistry(egress, Auth(egress, env={"HOME": "/nonexistent"}))
        assert client.resolve(parse_ref(f"{server.authority}/a/b")).manifest == data
        assert [each for each in server.asked if "manifests" in each.path] == []
        assert client.resolve(parse_ref(f"{server.authority}/a/b@{digest_of(data)}")).manifest == data
        assert len([each for each in server.asked if "manifests" in each.path]) == 1


def test_pages_of_tags() -> None:
    """Lists come page by page; a list that leads in a circle ends."""
    pages = {
        "GET /v2/a/b/tags/list": lambda asked: (
            json_answer({"tags": ["a", "b"]}, link='</v2/a/b/tags/list?last=b>; rel="next"') if "last" not in asked.path
            else json_answer({"tags": ["c", 5]}, link='</v2/a/b/tags/list?last=b>; rel="next"')
        )
    }  # fmt: skip
    with registry(at(pages)) as (client, server):
        assert client.tags(parse_ref(f"{server.authority}/a/b")) == ["a", "b", "c"]
        assert client.tags(parse_ref(f"{server.authority}/a/b"), limit=2) == ["a", "b"]


def test_referrers() -> None:
    """Referrers come from the API, filtered by type here too, or from the tag that stands in for it."""
    listing = index(entry(b"sig", artifactType="application/sig"), entry(b"doc", artifactType="application/doc"))
    digest = digest_of(b"m")
    for path in (f"referrers/{digest}", f"manifests/{digest.replace(':', '-')}"):
        with registry(at({f"GET /v2/a/b/{path}": answer(200, listing)})) as (client, server):
            ref = parse_ref(f"{server.authority}/a/b")
            found = client.referrers(ref, digest, "application/sig")
            assert [each.digest for each in found] == [digest_of(b"sig")]
            assert len(client.referrers(ref, digest)) == 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["manifests", "digest", "size", "platform", "os", "annotations", "mediaType"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_index(value: Any) -> None:
    """Whatever JSON an index is, it gives a descriptor or a ManifestError."""
    try:
        pick({"manifests": value}, "x")
    except ManifestError:
        return
