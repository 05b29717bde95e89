"""Models in OCI registries: what a reference resolves to, and the bytes of its blobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import quote

from corral.descriptors import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Descriptor,
    check_digest,
    decode_json,
    descriptor_from,
    digest_of,
)
from corral.errors import DigestMismatch, ManifestError, NotInRegistry, RegistryError, Unavailable
from corral.refs import Ref
from corral.registry import oci_push
from corral.registry.answers import failure
from corral.registry.auth import Auth
from corral.registry.egress import Egress, Response
from corral.registry.oci_index import pick
from corral.registry.oci_push import Progress, PushBlob
from corral.registry.policy import canonical, parse_url
from corral.registry.source import Opener, RemoteBlob, RemoteModel

__all__ = ["OciRegistry", "PushBlob"]

ACCEPT = ", ".join((MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX, "application/json;q=0.1"))
MAX_INDEX_DEPTH = 4
MAX_BLOBS = 10_000
MAX_PAGES = 1000

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?', re.IGNORECASE)
_TITLES = ("org.opencontainers.image.title", "org.cncf.model.filepath")
_Got = TypeVar("_Got")


class BlobBody:
    """An answer as `source.Body` wants it. `abort` may be called by another thread."""

    def __init__(self, response: Response, offset: int, total: int | None) -> None:
        self.status = response.status
        self.offset = offset
        self.total = total
        self.headers = response.headers
        self._response = response

    def readinto(self, buffer: memoryview) -> int:
        return self._response.readinto(buffer)

    def abort(self) -> None:
        self._response.abort()

    def close(self) -> None:
        self._response.close()


class OciRegistry:
    """Any registry that keeps OCI's distribution specification; a `Source`. Safe to use from many threads.

    A host's mirrors are asked first, each with its own credentials; what they cannot give comes from the host itself.
    """

    def __init__(self, egress: Egress, auth: Auth) -> None:
        self.egress = egress
        self.auth = auth

    def resolve(self, ref: Ref) -> RemoteModel:
        """The model that `ref` means now. An index is followed to the manifest for this machine.

        Raises NotInRegistry, NotAllowedThere, RateLimited, Unavailable, ManifestError, DigestMismatch, EgressRefused.
        """
        notes: list[str] = []
        data, media_type = self.manifest(ref)
        seen: set[str] = set()
        for _ in range(MAX_INDEX_DEPTH):
            content = decode_json(data, f"the manifest of {ref}")
            if "manifests" not in content:
                return RemoteModel(ref, self._blobs(ref, content), data, media_type, notes=tuple(notes))
            if "layers" in content or "config" in content:
                raise ManifestError(
                    f"{ref} is a manifest and an index at once",
                    hint="two programs would see two different models in it",
                )
            chosen, why = pick(content, str(ref))
            if chosen.digest in seen:
                raise ManifestError(f"the indexes of {ref} lead in a circle", hint="the artifact is damaged")
            seen.add(chosen.digest)
            notes.append(why)
            inner = Ref("oci", ref.host, ref.repository, digest=chosen.digest)
            data, media_type = self.manifest(inner)
            if len(data) != chosen.size:
                raise ManifestError(
                    f"{chosen.digest} has {len(data)} bytes, not {chosen.size}", hint="the index is wrong"
                )
        raise ManifestError(f"{ref} has more than {MAX_INDEX_DEPTH} indexes in each other", hint="it is damaged")

    def manifest(self, ref: Ref) -> tuple[bytes, str]:
        """The manifest or index itself and its media type; checked against the digest of `ref` and the server's own."""

        def get(host: str) -> tuple[bytes, str]:
            with self._get(
                host, ref.repository, f"manifests/{_reference(ref)}", str(ref), {"accept": ACCEPT}
            ) as answer:
                data = answer.read(MAX_MANIFEST_BYTES)
            said = answer.headers.get("docker-content-digest")
            for wanted in (ref.digest, said if said.startswith("sha256:") else None):
                if wanted and digest_of(data) != wanted:
                    raise DigestMismatch(
                        f"the manifest of {ref} is {digest_of(data)}, not {wanted[:80]}",
                        hint=f"{host} gave something else than what was asked for",
                    )
            return data, _media_type(answer, data)

        return self._from_any(ref.host, get)

    def head(self, ref: Ref) -> Descriptor | None:
        """What `ref` points at now, without fetching it; None when there is none. Hub does not count this as a pull."""
        path = f"manifests/{_reference(ref)}"
        try:
            answer = self._get(ref.host, ref.repository, path, str(ref), {"accept": ACCEPT}, method="HEAD")
        except NotInRegistry:
            return None
        answer.close()
        digest, size = answer.headers.get("docker-content-digest"), answer.length
        if not digest or size is None:
            data, media_type = self.manifest(ref)
            return Descriptor(media_type, digest_of(data), len(data))
        return Descriptor(answer.headers.get("content-type").partition(";")[0], check_digest(digest), size)

    def opener(self, ref: Ref, descriptor: Descriptor) -> Opener:
        """Opens the blob `descriptor` of the repository of `ref`, wherever it begins."""
        check_digest(descriptor.digest)

        def open_at(offset: int, length: int | None) -> BlobBody:
            return self._from_any(ref.host, lambda host: self._open(host, ref, descriptor, offset, length))

        return open_at

    def blob(self, ref: Ref, descriptor: Descriptor, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small blob, whole and checked. Raises ManifestError when it is larger than `limit`, DigestMismatch."""
        if descriptor.size > limit:
            raise ManifestError(f"{descriptor.digest} has {descriptor.size} bytes", hint=f"{limit} are allowed")
        path = f"blobs/{check_digest(descriptor.digest)}"

        def get(host: str) -> bytes:
            with self._get(host, ref.repository, path, descriptor.digest) as answer:
                data = answer.read(limit)
            if digest_of(data) != descriptor.digest:
                raise DigestMismatch(f"{host} gave something else for {descriptor.digest}", hint="try again")
            return data

        return self._from_any(ref.host, get)

    def push(
        self,
        ref: Ref,
        manifest: bytes,
        media_type: str,
        blobs: Sequence[PushBlob],
        progress: Progress = lambda digest, done, size: None,
    ) -> str:
        """Sends what the registry does not have yet, then the manifest under the tag of `ref`; its digest.

        `progress(digest, done, size)` is told how much of each blob is there; raising from it ends the push. Raises
        RegistryError, and whatever opening a blob raises.
        """
        return oci_push.push(self.auth, ref, manifest, media_type, blobs, progress)

    def tags(self, ref: Ref, limit: int = 10_000) -> list[str]:
        """The tags of the repository of `ref`, in the registry's order."""
        scopes = (f"repository:{ref.repository}:pull",)
        pages = self._pages(ref.host, f"/v2/{ref.repository}/tags/list", scopes, f"tags of {ref.repository}")
        return _texts(pages, "tags", limit)

    def catalog(self, host: str, limit: int = 10_000) -> list[str]:
        """The repositories of a registry, where it tells them."""
        return _texts(self._pages(host, "/v2/_catalog", ("registry:catalog:*",), "catalog"), "repositories", limit)

    def referrers(self, ref: Ref, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """Manifests that say they are about `digest`: by the referrers API, else by the tag `sha256-…` that stands in.

        Source: OCI distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema".
        """
        path = f"referrers/{check_digest(digest)}"
        try:
            with self._get(ref.host, ref.repository, path, "referrers", {"accept": INDEX}) as answer:
                data = answer.read(MAX_MANIFEST_BYTES)
        except NotInRegistry:
            try:
                data, _ = self.manifest(Ref("oci", ref.host, ref.repository, digest.replace(":", "-")))
            except NotInRegistry:
                return []
        entries = decode_json(data, "the list of referrers").get("manifests")
        found = []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, Mapping) and artifact_type in ("", entry.get("artifactType")):
                found.append(descriptor_from(entry))
        return found

    def _from_any(self, host: str, get: Callable[[str], _Got]) -> _Got:
        """From the first mirror that has it, else from the host itself, whose errors are the ones that count."""
        for mirror in self.egress.policy.mirrors.get(canonical(host), ()):
            try:
                return get(mirror)
            except RegistryError:
                continue
        return get(host)

    def _get(
        self,
        host: str,
        repository: str,
        path: str,
        what: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        method: str = "GET",
    ) -> Response:
        url = f"{self.egress.base_url(host)}/v2/{repository}/{path}"
        scopes = (f"repository:{repository}:pull",)
        answer = self.auth.request(method, url, host=host, scopes=scopes, headers=headers)
        if answer.status not in (200, 206):
            raise failure(answer, what, host)
        return answer

    def _open(self, host: str, ref: Ref, descriptor: Descriptor, offset: int, length: int | None) -> BlobBody:
        headers = {}
        if offset or length is not None:
            headers["range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        answer = self._get(host, ref.repository, f"blobs/{descriptor.digest}", descriptor.digest, headers)
        try:
            return _body(answer, host, offset, ranged=bool(headers))
        except BaseException:
            answer.close()
            raise

    def _blobs(self, ref: Ref, manifest: Mapping[str, object]) -> tuple[RemoteBlob, ...]:
        """The config and the layers, each digest once. Addresses in descriptors (`urls`) are not believed."""
        layers = manifest.get("layers", [])
        if not isinstance(layers, list) or len(layers) > MAX_BLOBS:
            raise ManifestError(f"the layers of {ref} are no list of at most {MAX_BLOBS}", hint="it is damaged")
        entries = ([manifest["config"]] if manifest.get("config") else []) + layers
        if not entries:
            raise ManifestError(f"{ref} has neither a config nor layers", hint="it is no model")
        found: dict[str, RemoteBlob] = {}
        sizes: dict[str, int] = {}
        for entry in entries:
            blob = descriptor_from(entry)
            if sizes.setdefault(blob.digest, blob.size) != blob.size:
                raise ManifestError(f"{ref} gives {blob.digest} two sizes", hint="the manifest is damaged")
            title = next((blob.annotations[key] for key in _TITLES if blob.annotations.get(key)), "")
            opener = self.opener(ref, blob)
            new = RemoteBlob(blob.media_type, opener, blob.digest, blob.size, title=title)
            found.setdefault(blob.digest, new)
        return tuple(found.values())

    def _pages(self, host: str, path: str, scopes: tuple[str, ...], what: str) -> Iterator[Mapping[str, object]]:
        base = self.egress.base_url(host)
        url = f"{base}{path}?n=1000"
        seen = set()
        for _ in range(MAX_PAGES):
            with self.auth.request("GET", url, host=host, scopes=scopes) as answer:
                if answer.status != 200:
                    raise failure(answer, what, host)
                yield decode_json(answer.read(MAX_MANIFEST_BYTES), f"the {what}")
                link = _NEXT.search(answer.headers.get("link"))
            if link is None or link[1] in seen:
                return
            seen.add(link[1])
            url = str(parse_url(link[1], parse_url(url)))


def _reference(ref: Ref) -> str:
    if ref.digest:
        return check_digest(ref.digest)
    return quote(ref.tag or "latest", safe="")


def _media_type(answer: Response, data: bytes) -> str:
    """The body's own word counts, then the header's: a proxy may rewrite headers, but not what the digest covers."""
    own = decode_json(data, "the manifest").get("mediaType")
    said = answer.headers.get("content-type").partition(";")[0].strip().lower()
    if isinstance(own, str) and own:
        return own[:255]
    return said if said not in ("", "application/json", "application/octet-stream", "text/plain") else MANIFEST


def _body(answer: Response, host: str, offset: int, *, ranged: bool) -> BlobBody:
    if answer.status == 200:
        return BlobBody(answer, 0, answer.length)
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range"))
    if not ranged or match is None or int(match[1]) != offset:
        raise Unavailable(f"{host} gave another range than the one it was asked for", hint="try again", reason="range")
    return BlobBody(answer, offset, None if match[3] == "*" else int(match[3]))


def _texts(pages: Iterator[Mapping[str, object]], key: str, limit: int) -> list[str]:
    found: list[str] = []
    for page in pages:
        entries = page.get(key)
        found += [each for each in (entries if isinstance(entries, list) else []) if isinstance(each, str)]
        if len(found) >= limit:
            break
    return found[:limit]
