"""OCI registries that lie, break off and differ from each other."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.descriptors import INDEX, MANIFEST, MAX_MANIFEST_BYTES, Descriptor, digest_of
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
from corral.registry.oci_push import PushBlob
from support.raw_http import Asked, RawServer, Script, answer, at, json_answer, serving

PING = {"GET /v2/": answer(body=b"{}")}
CONFIG = {"mediaType": "application/x", "digest": digest_of(b"{}"), "size": 2}


def layer(data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": "application/vnd.docker.ai.gguf.v3", "digest": digest_of(data), "size": len(data), **more}


def manifest(*layers: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": CONFIG, "layers": layers, **more}).encode()


def index(*entries: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more}).encode()


def entry(data: bytes, os: str = "", architecture: str = "", **more: Any) -> dict[str, Any]:
    platform = {"platform": {"os": os, "architecture": architecture}} if os else {}
    return {"mediaType": MANIFEST, "digest": digest_of(data), "size": len(data), **platform, **more}


@contextmanager
def registry(script: Script, **policy: Any) -> Iterator[tuple[OciRegistry, RawServer]]:
    def whole(asked: Asked) -> bytes | None:
        return PING["GET /v2/"] if asked.path == "/v2/" else script(asked)

    with serving(whole) as server, Egress(EgressPolicy(proxy="", stall_s=5, **policy)) as egress:
        yield OciRegistry(egress, Auth(egress, env={"HOME": "/nonexistent"})), server


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


# Pushing.

LARGE = hashlib.sha256(b"seed").digest() * (9 << 15)  # 9 MiB: sent in pieces


class Uploads:
    """The receiving end of uploads, which can be told to misbehave."""

    def __init__(self) -> None:
        self.host = ""
        self.data = bytearray()
        self.blobs: dict[str, bytes] = {}
        self.posts = 0
        self.break_at: list[int] = []  # how much of a piece is kept before the connection breaks
        self.forget = False  # what broke off is not known afterwards
        self.patch_status = 202
        self.location = "/v2/a/b/blobs/uploads/{n}?state=x"
        self.types: list[str] = []

    def script(self, asked: Asked) -> bytes | None:
        path, _, query = asked.path.partition("?")
        if asked.method == "HEAD":
            return answer(200 if path.rpartition("/")[2] in self.blobs else 404)
        if asked.method == "POST":
            self.posts += 1
            self.data.clear()
            return self._go_on()
        if asked.method == "PATCH":
            return self._piece(asked)
        if asked.method == "GET":
            return answer(404) if self.forget else self._go_on(204)
        if "manifests" in path:
            self.types.append(asked.headers["content-type"])
            return answer(201, docker_content_digest=digest_of(asked.body))
        self.data += asked.body
        digest = query.rpartition("digest=")[2].replace("%3A", ":")
        if digest_of(bytes(self.data)) != digest:
            return json_answer({"errors": [{"code": "DIGEST_INVALID"}]}, 400)
        self.blobs[digest] = bytes(self.data)
        return answer(201)

    def _piece(self, asked: Asked) -> bytes | None:
        if self.patch_status != 202:
            return answer(self.patch_status)
        first = int(asked.headers["content-range"].partition("-")[0])
        if first != len(self.data):
            return answer(416)
        if self.break_at:
            self.data += asked.body[: self.break_at.pop(0)]
            return None
        self.data += asked.body
        return self._go_on()

    def _go_on(self, status: int = 202) -> bytes:
        where = self.location.format(n=self.posts, host=self.host)
        return answer(status, location=where, range=f"0-{max(0, len(self.data) - 1)}")


def push(uploads: Uploads, data: bytes = LARGE, **policy: Any) -> tuple[str, list[tuple[str, int, int]], RawServer]:
    seen: list[tuple[str, int, int]] = []
    with registry(uploads.script, **policy) as (client, server):
        uploads.host = server.authority
        blob = PushBlob(Descriptor("application/x", digest_of(data), len(data)), lambda: io.BytesIO(data))
        content = manifest(layer(data))
        ref = parse_ref(f"{server.authority}/a/b:v1")
        assert client.push(ref, content, MANIFEST, [blob], lambda *step: seen.append(step)) == digest_of(content)
        return digest_of(data), seen, server


def test_small_blobs_go_in_one_request() -> None:
    """A small blob is one POST and one PUT."""
    uploads = Uploads()
    digest, _, server = push(uploads, b"small")
    assert uploads.blobs[digest] == b"small"
    methods = [each.method for each in server.asked if each.path != "/v2/"]
    assert methods == ["HEAD", "POST", "PUT", "PUT"]
    assert uploads.types == [MANIFEST]


def test_broken_upload_goes_on() -> None:
    """An upload that breaks off goes on after what the registry has kept."""
    uploads = Uploads()
    uploads.break_at = [4 << 20, 3 << 20]
    digest, seen, server = push(uploads)
    assert uploads.blobs[digest] == LARGE
    assert uploads.posts == 1
    assert seen[-1] == (digest, len(LARGE), len(LARGE))
    starts = [each.headers["content-range"].partition("-")[0] for each in server.asked if each.method == "PATCH"]
    assert starts == ["0", str(4 << 20), str(7 << 20)]


def test_forgotten_upload_begins_again() -> None:
    """An upload that the registry has forgotten begins again."""
    uploads = Uploads()
    uploads.break_at, uploads.forget = [4 << 20], True
    digest, _, _ = push(uploads)
    assert uploads.blobs[digest] == LARGE
    assert uploads.posts == 2


def test_registry_without_pieces() -> None:
    """A registry that takes no pieces gets the blob in one request."""
    uploads = Uploads()
    uploads.patch_status = 405
    digest, _, _ = push(uploads)
    assert uploads.blobs[digest] == LARGE


def test_absolute_locations() -> None:
    """An upload's place may be a whole URL of the same registry."""
    uploads = Uploads()
    uploads.location = "http://{host}/elsewhere/{n}"
    digest, _, server = push(uploads)
    assert uploads.blobs[digest] == LARGE
    assert any(each.path.startswith("/elsewhere/1") for each in server.asked)


@pytest.mark.parametrize(
    "location", ["https://10.0.0.1/up", "http://127.0.0.1:1/up", "file:///tmp/x", "http://example.com/"]
)
def test_uploads_to_where_nobody_may(location: str) -> None:
    """An upload that is sent to a private address or another scheme is refused, and nothing is sent."""
    uploads = Uploads()
    uploads.location = location
    with pytest.raises(EgressRefused):
        push(uploads)
    assert uploads.blobs == {}


def test_refused_upload() -> None:
    """A registry that does not let us push is said to, at once."""

    def script(asked: Asked) -> bytes:
        return answer(404) if asked.method == "HEAD" else json_answer({"errors": [{"code": "DENIED"}]}, 403)

    with registry(script) as (client, server):
        with pytest.raises(NotAllowedThere, match="DENIED"):
            client.push(
                parse_ref(f"{server.authority}/a/b"), b"{}", MANIFEST, [PushBlob(BLOB, lambda: io.BytesIO(DATA))]
            )
        assert len([each for each in server.asked if each.method == "POST"]) == 1


def test_patience_has_an_end() -> None:
    """A registry that wants us to come back much later is not waited for."""
    with registry(lambda asked: answer(429, retry_after="3000")) as (client, server):
        with pytest.raises(RateLimited) as caught:
            client.push(
                parse_ref(f"{server.authority}/a/b"), b"{}", MANIFEST, [PushBlob(BLOB, lambda: io.BytesIO(DATA))]
            )
        assert caught.value.retry_after_s == 3000
