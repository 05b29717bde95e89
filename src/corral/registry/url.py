"""A GGUF file at any URL: `https://…gguf`, or the first of a split model; `#sha256=…` says what it must be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from corral.artifact import safe_path
from corral.descriptors import MANIFEST, Descriptor, check_digest, digest_of
from corral.errors import DigestMismatch, ManifestError, NotInRegistry
from corral.hidden import address
from corral.refs import Ref
from corral.registry.egress import Egress
from corral.registry.hub_files import MAX_SHARDS, shard_of
from corral.registry.ranged import RangedBody, open_range
from corral.registry.source import RemoteBlob, RemoteModel

LAYER: Final = "application/vnd.docker.ai.gguf.v3"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
_MAGIC: Final = b"GGUF"
_PROBED: Final = 16
_FRAGMENT = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


def expecting(ref: Ref, sha256: str) -> Ref:
    """`ref`, a URL's, with what its file's SHA-256 must be: 64 hex digits, with or without `sha256:` before them.

    Raises ManifestError for anything else.
    """
    digest = check_digest("sha256:" + sha256.strip().lower().removeprefix("sha256:"))
    return replace(ref, repository=f"{_bare(ref.repository)}#{digest.replace(':', '=')}")


class UrlSource:
    """A `Source`. The manifest has nothing in it but the files, so that it is the same whether the digest was known
    before or is found out while fetching."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    def resolve(self, ref: Ref) -> RemoteModel:
        """The files at the URL: their sizes, and that they are GGUF. Blocks for one round trip per file."""
        url, fragment = _bare(ref.repository), urlsplit(ref.repository).fragment
        expected = _FRAGMENT.fullmatch(fragment)
        if fragment and expected is None:
            raise ManifestError(f"#{fragment[:80]} is no SHA-256", hint="write #sha256= and 64 hex digits, or --sha256")
        urls = _parts(url)
        if expected is not None and len(urls) > 1:
            raise ManifestError(
                f"{address(url)} is one of {len(urls)} files", hint="leave out --sha256: it is for one file"
            )
        digest = f"sha256:{expected[1].lower()}" if expected is not None else None
        blobs = [replace(self._probed(each), digest=digest) for each in urls]
        config = RemoteBlob(EMPTY, _nowhere, digest_of(b"{}"), 2, b"{}", title="config")
        names = [blob.title for blob in blobs]
        manifest = None
        if digest is not None and (size := blobs[0].size) is not None:
            manifest = _manifest([Descriptor(LAYER, digest, size)], names)
        if manifest is not None and ref.digest not in (None, digest_of(manifest)):
            raise DigestMismatch(f"{ref.name} is not {ref.digest}", hint="pull it again without the digest")
        notes = () if digest else ("nothing says what its SHA-256 should be; --sha256 would",)
        return RemoteModel(
            ref, (config, *blobs), manifest, MANIFEST, finish=lambda found: _finished(found, names), notes=notes
        )

    def _probed(self, url: str) -> RemoteBlob:
        name = _name(url)
        opener = partial(self._open, url, name)
        body = opener(0, _PROBED)
        try:
            start = _read(body, len(_MAGIC))
            total, etag = body.total, body.etag
        finally:
            body.close()
        if start != _MAGIC:
            hint = "is it a page about the file rather than the file? Copy the address of its download"
            raise NotInRegistry(f"what is at {address(url)} is no GGUF file: it begins with {start!r}", hint=hint)
        return RemoteBlob(LAYER, opener, None, total, etag=etag, title=name)

    def _open(self, url: str, what: str, offset: int = 0, length: int | None = None) -> RangedBody:
        return open_range(self._egress, url, offset, length, what=what, host=urlsplit(url).netloc)


def _parts(url: str) -> list[str]:
    """All files of a split model, when `url` is one of them by its name."""
    parts = urlsplit(url)
    shard = shard_of(parts.path)
    if shard is None or not 1 <= shard.number <= shard.count <= MAX_SHARDS:
        return [url]
    stem = shard.whole.rpartition(".")[0]
    ending = parts.path.rpartition(".")[2]
    return [
        urlunsplit(parts._replace(path=f"{stem}-{number:05}-of-{shard.count:05}.{ending}"))
        for number in range(1, shard.count + 1)
    ]


def _name(url: str) -> str:
    """The file's name, as the URL has it."""
    name = unquote(urlsplit(url).path).rpartition("/")[2] or "model.gguf"
    return safe_path(name if name.lower().endswith(".gguf") else f"{name}.gguf")


def _bare(url: str) -> str:
    return url.partition("#")[0]


def _read(body: RangedBody, count: int) -> bytes:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count and (more := body.readinto(view[done:])):
        done += more
    return bytes(view[:done])


def _finished(found: Sequence[Descriptor], names: Sequence[str]) -> bytes:
    """The manifest, once the digests are known. `found` has the blobs' descriptors in their order, config or not."""
    layers = [each for each in found if each.media_type != EMPTY]
    return _manifest(layers, names)


def _manifest(layers: Sequence[Descriptor], names: Sequence[str]) -> bytes:
    """An OCI artifact without a config, as other tools push files too."""
    listed: list[dict[str, Any]] = []
    for layer, name in zip(layers, names, strict=True):
        notes = {"org.cncf.model.filepath": name, "org.opencontainers.image.title": name}
        listed.append(Descriptor(LAYER, layer.digest, layer.size, notes).as_data())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": LAYER,
        "config": Descriptor(EMPTY, digest_of(b"{}"), 2).as_data(),
        "layers": listed,
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _nowhere(offset: int, length: int | None) -> RangedBody:
    raise NotInRegistry("a config made here is fetched from nowhere", hint="please report it")
