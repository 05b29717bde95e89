"""Pushing to OCI registries that break off, forget and differ from each other."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest

from corral.descriptors import MANIFEST, Descriptor, digest_of
from corral.errors import EgressRefused, NotAllowedThere, RateLimited
from corral.refs_parse import parse_ref
from corral.registry.oci_push import PushBlob
from support.raw_http import Asked, RawServer, answer, json_answer
from support.scripted_registry import layer, manifest, registry

DATA = bytes(range(256)) * 100
BLOB = Descriptor("application/x", digest_of(DATA), len(DATA))

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
