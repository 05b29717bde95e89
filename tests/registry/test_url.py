"""A GGUF file at any URL as a source, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from corral.artifact import read_artifact
from corral.descriptors import Descriptor, digest_of
from corral.errors import CorralError, EgressRefused, ManifestError, NotInRegistry
from corral.refs_parse import parse_ref
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.source import RemoteModel
from corral.registry.url import UrlSource, expecting
from support.http_servers import QuietHandler, running
from support.remote import read_blob

CONTENT = b"GGUF" + b"x" * 5000


@dataclass
class Files:
    base: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/m/model.gguf": CONTENT})
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    etag: str = ""
    redirect: str = ""


class _Handler(QuietHandler):
    state: Files

    def do_GET(self) -> None:
        self.state.asked.append((self.path, self.head()))
        content = self.state.files.get(self.path)
        if self.state.redirect:
            self.answer(302, b"", {"Location": self.state.redirect})
        elif content is None:
            self.answer(404)
        else:
            self.answer_content(content, ranges=self.state.ranges, etag=self.state.etag)


@pytest.fixture
def server() -> Iterator[Files]:
    state = Files()
    with running(_Handler, state) as state.base:
        yield state


@pytest.fixture
def source() -> Iterator[UrlSource]:
    with Egress(EgressPolicy(stall_s=5), env={}) as egress:
        yield UrlSource(egress)


def resolve(source: UrlSource, url: str, sha256: str = "") -> RemoteModel:
    ref = parse_ref(url)
    return source.resolve(expecting(ref, sha256) if sha256 else ref)


def finished(model: RemoteModel) -> bytes:
    """What a download makes of it: every blob fetched, then the manifest of what they turned out to be."""
    assert model.finish is not None
    found = []
    for blob in model.blobs:
        data = blob.data if blob.data is not None else read_blob(blob)
        found.append(Descriptor(blob.media_type, digest_of(data), len(data)))
    return model.finish(tuple(found))


def test_file_becomes_a_model(server: Files, source: UrlSource) -> None:
    """A GGUF file at a URL is a model of one file under its own name, and a note says that nothing vouches for it."""
    server.etag = '"v1"'
    model = resolve(source, f"{server.base}/m/model.gguf")
    weights = model.blobs[1]
    assert (weights.size, weights.digest, weights.etag, weights.title) == (5004, None, '"v1"', "model.gguf")
    assert model.manifest is None
    assert "--sha256" in model.notes[0]
    found = read_artifact(json.loads(finished(model)), {})
    assert [(file.role, file.path) for file in found.files] == [("weights", "model.gguf")]
    assert found.files[0].descriptor.digest == digest_of(CONTENT)


@pytest.mark.parametrize("form", ["{}", "sha256:{}", " SHA256:{} ".upper()])
def test_known_digest_gives_the_same_manifest_before_fetching(server: Files, source: UrlSource, form: str) -> None:
    """With --sha256 the manifest is known at once, and is the one that is made without."""
    sha256 = digest_of(CONTENT).removeprefix("sha256:")
    model = resolve(source, f"{server.base}/m/model.gguf", form.format(sha256))
    assert model.blobs[1].digest == digest_of(CONTENT)
    assert model.manifest == finished(resolve(source, f"{server.base}/m/model.gguf"))
    assert model.notes == ()


def test_expected_digest_survives_as_text(server: Files) -> None:
    """A reference with a digest can be written down and read again, as jobs are."""
    ref = expecting(parse_ref(f"{server.base}/m/model.gguf"), "a" * 64)
    assert parse_ref(str(ref)) == ref
    assert ref.name == f"{server.base}/m/model.gguf"
    assert expecting(ref, "b" * 64).repository.endswith("#sha256=" + "b" * 64)


@pytest.mark.parametrize("sha256", ["", "x", "a" * 63, "a" * 65, "md5:" + "a" * 64, "sha256:sha256:" + "a" * 64])
def test_what_is_no_sha256_is_refused(sha256: str) -> None:
    """Only 64 hex digits are a SHA-256."""
    with pytest.raises(ManifestError):
        expecting(parse_ref("https://example.com/m.gguf"), sha256)


def test_split_model_has_all_its_files(server: Files, source: UrlSource) -> None:
    """The URL of one file of a split model stands for all of them."""
    server.files = {f"/m-{number:05}-of-00003.gguf": CONTENT + bytes([number]) for number in (1, 2, 3)}
    model = resolve(source, f"{server.base}/m-00002-of-00003.gguf")
    assert [blob.title for blob in model.blobs[1:]] == [path[1:] for path in server.files]
    found = read_artifact(json.loads(finished(model)), {})
    assert [file.role for file in found.files] == ["weights", "shard", "shard"]
    with pytest.raises(ManifestError, match="one of 3 files"):
        resolve(source, f"{server.base}/m-00001-of-00003.gguf", "a" * 64)


def test_absent_shard_is_an_error(server: Files, source: UrlSource) -> None:
    """A split model of which a file is missing is not begun."""
    server.files = {"/m-00001-of-00002.gguf": CONTENT}
    with pytest.raises(NotInRegistry):
        resolve(source, f"{server.base}/m-00001-of-00002.gguf")


def test_only_a_little_is_read_to_see_what_it_is(server: Files, source: UrlSource) -> None:
    """Resolving asks for the first bytes only, and a server that ignores that is not read further."""
    server.ranges = False
    server.files["/m/model.gguf"] = CONTENT * 20_000
    assert resolve(source, f"{server.base}/m/model.gguf").blobs[1].size == len(CONTENT) * 20_000
    assert [head["range"] for _, head in server.asked] == ["bytes=0-15"]


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"GGU", b"version https://git-lfs"])
def test_what_is_no_gguf_is_refused(server: Files, source: UrlSource, content: bytes) -> None:
    """A page or another file in the place of a model is told from it before anything is stored."""
    server.files["/m/model.gguf"] = content
    with pytest.raises(CorralError) as caught:
        resolve(source, f"{server.base}/m/model.gguf")
    assert caught.value.hint


def test_name_comes_from_the_path(server: Files, source: UrlSource) -> None:
    """A query is part of the address and not of the name; a name without an ending gets one."""
    server.files["/get/42?key=1&x=.gguf"] = CONTENT
    assert resolve(source, f"{server.base}/get/42?key=1&x=.gguf").blobs[1].title == "42.gguf"


@pytest.mark.parametrize("path", ["/%2e%2e%2fetc.gguf", "/a%2F..%2F..%2Fb.gguf", "/a%00b.gguf", "/a%5Cb.gguf"])
def test_name_leads_nowhere(server: Files, source: UrlSource, path: str) -> None:
    """A name in a URL cannot lead out of a folder, however it is encoded."""
    server.files[path] = CONTENT
    try:
        title = resolve(source, f"{server.base}{path}").blobs[1].title
    except ManifestError:
        return
    assert "/" not in title and ".." not in title and "\\" not in title


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/x", "http://10.0.0.1/x", "file:///etc/passwd", "ftp://a/b"])
def test_redirect_inwards_is_refused(server: Files, source: UrlSource, place: str) -> None:
    """A server cannot send us to this machine's network, to a file, or to another scheme."""
    server.redirect = place
    with pytest.raises(EgressRefused):
        resolve(source, f"{server.base}/m/model.gguf")


def test_unknown_fragment_is_refused(source: UrlSource, server: Files) -> None:
    """A fragment that says nothing we know is an error, not ignored."""
    with pytest.raises(ManifestError, match="no SHA-256"):
        resolve(source, f"{server.base}/m/model.gguf#sha1=abc")


def test_weak_etag_does_not_count(server: Files, source: UrlSource) -> None:
    """Only a strong ETag says that the bytes are the same."""
    server.etag = 'W/"v1"'
    assert resolve(source, f"{server.base}/m/model.gguf").blobs[1].etag is None


def test_answers_to_other_ranges_are_refused(source: UrlSource) -> None:
    """A part that begins elsewhere, or does not say where, is an error and not content."""
    shifted: Any = {"Content-Range": "bytes 1-15/5004"}
    for headers in (shifted, {}, {"Content-Range": "bytes 0-99/5004"}, {"Content-Range": "bytes 9-0/5"}):
        with running(type("Odd", (_Odd,), {}), headers) as base, pytest.raises(CorralError) as caught:
            resolve(source, f"{base}/m.gguf")
        assert caught.value.hint


class _Odd(QuietHandler):
    def do_GET(self) -> None:
        self.answer(206, CONTENT[:15], self.state)
