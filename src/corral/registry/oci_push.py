"""Sending a model to an OCI registry: what is there already is not sent, and what broke off goes on where it was."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from corral.descriptors import Descriptor, check_digest, digest_of
from corral.errors import DigestMismatch, RateLimited, RegistryError, Unavailable
from corral.lazy_dataclass import dataclass
from corral.refs import Ref
from corral.registry.answers import failure
from corral.registry.auth import Auth
from corral.registry.egress import Response
from corral.registry.policy import Target, parse_url

Progress = Callable[[str, int, int], None]
_Done = TypeVar("_Done")

WHOLE_BYTES = 8 << 20
"""Smaller blobs go in one request, with which every registry agrees."""

CHUNK_BYTES = 64 << 20
TRIES = 5
"""Without progress. Progress begins the count anew."""

MAX_WAIT_S = 60
"""A registry that wants to be left alone for longer is not waited for."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class PushBlob:
    """A blob to send. `open()` gives a seekable file; `mount_from` is a repository of the same registry that has it."""

    descriptor: Descriptor
    open: Callable[[], BinaryIO]
    mount_from: str = ""


@dataclass(slots=True)
class _Upload:
    """One upload session: where the next request goes, and how much the registry has."""

    location: Target
    offset: int = 0
    chunk_bytes: int = CHUNK_BYTES


def push(auth: Auth, ref: Ref, manifest: bytes, media_type: str, blobs: Sequence[PushBlob], progress: Progress) -> str:
    """See OciRegistry.push."""
    digest = digest_of(manifest)
    sender = _Sender(auth, ref, progress, [blob.mount_from for blob in blobs if blob.mount_from])
    for blob in {blob.descriptor.digest: blob for blob in blobs}.values():
        sender.send(blob)
    reference = quote(ref.tag, safe="") if ref.tag else digest
    said = sender.patiently(lambda: sender.send_manifest(reference, manifest, media_type))
    if said.startswith("sha256:") and said != digest:
        raise DigestMismatch(
            f"{ref.host} took the manifest of {ref} as {said[:80]}, not {digest}", hint="the registry changed it"
        )
    return digest


class _Sender:
    def __init__(self, auth: Auth, ref: Ref, progress: Progress, mounts: list[str]) -> None:
        self._auth = auth
        self._ref = ref
        self._progress = progress
        self._root = parse_url(auth.egress.base_url(ref.host))
        self.base = f"{self._root}".rstrip("/") + f"/v2/{ref.repository}"
        pulls = [f"repository:{name}:pull" for name in sorted(set(mounts))]
        self._scopes = (f"repository:{ref.repository}:pull,push", *pulls)

    def ask(self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Response:
        return self._auth.request(
            method, url, host=self._ref.host, scopes=self._scopes, headers=headers or {}, body=body
        )

    def send(self, blob: PushBlob) -> None:
        """Leaves the registry with `blob`."""
        digest, size = check_digest(blob.descriptor.digest), blob.descriptor.size
        if not self.patiently(lambda: self._has(digest)):
            with contextlib.ExitStack() as stack:
                self._send_blob(blob, stack)
        self._progress(digest, size, size)

    def send_manifest(self, reference: str, manifest: bytes, media_type: str) -> str:
        """The digest that the registry says it has it under, or ""."""
        url = f"{self.base}/manifests/{reference}"
        with self.ask("PUT", url, manifest, {"content-type": media_type}) as answer:
            if answer.status not in (200, 201, 202):
                raise failure(answer, f"the manifest {reference}", self._ref.host)
            return answer.headers.get("docker-content-digest")

    def patiently(self, act: Callable[[], _Done]) -> _Done:
        """`act()`, several times when the registry cannot be reached or wants us to come later."""
        for tries in range(1, TRIES):
            try:
                return act()
            except (Unavailable, RateLimited) as error:
                _wait(error, tries)
        return act()

    def _has(self, digest: str) -> bool:
        with self.ask("HEAD", f"{self.base}/blobs/{digest}") as answer:
            if answer.status == 429 or answer.status >= 500:
                raise failure(answer, digest, self._ref.host)
            return answer.status == 200

    def _send_blob(self, blob: PushBlob, stack: contextlib.ExitStack) -> None:
        file: BinaryIO | None = None
        tries, reached, whole = 0, -1, blob.descriptor.size <= WHOLE_BYTES
        upload: _Upload | None = None
        while True:
            try:
                if upload is None:
                    upload = self._begin(blob)
                    if upload is None:
                        return  # mounted
                elif not whole:
                    upload = self._ask_offset(upload)
                if upload is not None:
                    if file is None:
                        file = stack.enter_context(blob.open())
                    if not whole and not self._send_chunks(blob, file, upload):
                        whole, upload = True, None  # it takes no chunks: once more, in one piece
                        continue
                    self._finish(blob, file, upload, whole=whole)
                    return
            except (Unavailable, RateLimited) as error:
                at = upload.offset if upload is not None else 0
                tries = 0 if at > reached else tries + 1
                reached = max(at, reached)
                if tries >= TRIES:
                    raise
                if whole:
                    upload = None
                _wait(error, tries)

    def _begin(self, blob: PushBlob) -> _Upload | None:
        """A new upload, or None when the blob was mounted from another repository."""
        url = f"{self.base}/blobs/uploads/"
        if blob.mount_from:
            url += f"?mount={blob.descriptor.digest}&from={quote(blob.mount_from, safe='/')}"
        with self.ask("POST", url) as answer:
            if answer.status == 201 and blob.mount_from:
                return None
            if answer.status not in (201, 202):
                raise failure(answer, f"an upload to {self._ref.repository}", self._ref.host)
            upload = _Upload(self._location(answer, parse_url(url)))
            least = answer.headers.get("oci-chunk-min-length")
            if least.isdigit() and len(least) < 13:
                upload.chunk_bytes = max(CHUNK_BYTES, int(least))
            return upload

    def _ask_offset(self, upload: _Upload) -> _Upload | None:
        """How much the registry has of what broke off; None when it has forgotten the upload."""
        with self.ask("GET", str(upload.location)) as answer:
            if answer.status == 204 and (match := _RANGE.fullmatch(answer.headers.get("range"))):
                # Nothing and one byte look the same, "0-0": an upload that has hardly begun begins again.
                offset = 0 if match[1] == "0" else int(match[1]) + 1
                return _Upload(self._location(answer, upload.location), offset, upload.chunk_bytes) if offset else None
            if answer.status in (401, 403):
                raise failure(answer, f"an upload to {self._ref.repository}", self._ref.host)
            return None

    def _send_chunks(self, blob: PushBlob, file: BinaryIO, upload: _Upload) -> bool:
        """Sends from `upload.offset` to the end; False when the registry takes no chunks."""
        digest, size = blob.descriptor.digest, blob.descriptor.size
        while upload.offset < size:
            count = min(upload.chunk_bytes, size - upload.offset)
            file.seek(upload.offset)
            done = upload.offset

            def sent(piece: int) -> None:
                nonlocal done
                done += piece
                self._progress(digest, min(done, size), size)

            with self._auth.request(
                "PATCH",
                str(upload.location),
                host=self._ref.host,
                scopes=self._scopes,
                headers={
                    "content-type": "application/octet-stream",
                    "content-range": f"{upload.offset}-{upload.offset + count - 1}",
                },
                body=file,
                length=count,
                sent=sent,
            ) as answer:
                if answer.status in (404, 405, 501) and upload.offset == 0:
                    return False
                if answer.status in (404, 416):
                    raise Unavailable(f"{self._ref.host} has lost its place", hint="try again", reason="range")
                if answer.status not in (200, 201, 202, 204):
                    raise failure(answer, f"a piece of {digest}", self._ref.host)
                upload.location = self._location(answer, upload.location)
                match = _RANGE.fullmatch(answer.headers.get("range"))
                took = int(match[1]) + 1 if match else upload.offset + count
            if not upload.offset < took <= upload.offset + count:
                raise Unavailable(f"{self._ref.host} has lost its place", hint="try again", reason="range")
            upload.offset = took
        return True

    def _finish(self, blob: PushBlob, file: BinaryIO, upload: _Upload, *, whole: bool) -> None:
        digest, size = blob.descriptor.digest, blob.descriptor.size
        joint = "&" if "?" in upload.location.path else "?"
        file.seek(0)
        with self._auth.request(
            "PUT",
            f"{upload.location}{joint}digest={quote(digest, safe='')}",
            host=self._ref.host,
            scopes=self._scopes,
            headers={"content-type": "application/octet-stream"},
            body=file if whole else b"",
            length=size if whole else None,
        ) as answer:
            if answer.status in (200, 201, 204):
                return
            if answer.status == 400:
                raise _refused(answer, digest, self._ref.host)
            raise failure(answer, f"the end of {digest}", self._ref.host)

    def _location(self, answer: Response, base: Target) -> Target:
        """Where the upload goes on. A registry behind a proxy that ends TLS may call itself http, and is meant."""
        text = answer.headers.get("location")
        if not text:
            raise Unavailable(f"{self._ref.host} does not say where an upload goes on", hint="is it a registry?")
        target = parse_url(text, base)
        if target.host == self._root.host and target.scheme == "http" and self._root.scheme == "https":
            target = Target("https", target.host, self._root.port, target.path)
        return target


def _wait(error: RegistryError, tries: int) -> None:
    """Waits before another try; raises `error` where that would be too long."""
    asked_s = error.retry_after_s or 0
    if asked_s > MAX_WAIT_S:
        raise error
    time.sleep(max(asked_s, min(2.0**tries / 8, 8.0)))


def _refused(answer: Response, digest: str, host: str) -> RegistryError:
    error = failure(answer, f"the end of {digest}", host)
    return DigestMismatch(error.message, hint="the file changed while it was sent, or the network damages it")
