"""Docker Model Runner's own API, for a store whose files this user may not read: models come as a tar stream.

Source: docker/model-runner `pkg/distribution/tarball` (what an export holds), its routes `/models` and
`/models/…/export`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final, Protocol

from corral.artifact import read_artifact
from corral.descriptors import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Descriptor,
    check_digest,
    decode_json,
    descriptor_from,
    digest_of,
)
from corral.errors import CorralError, DigestMismatch, ManifestError, NotInRegistry, Unavailable
from corral.models.peers.docker import named
from corral.models.peers.outside import OutsideModel
from corral.registry.egress import Egress
from corral.store.store import Store

DEFAULT_BASE: Final = "http://127.0.0.1:12434"
BLOCK: Final = 512
PIECE_BYTES: Final = 1 << 20
MAX_MEMBERS: Final = 10_000
MAX_LIST_BYTES: Final = 32 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_HINT: Final = "is it Docker Model Runner that answers there?"


def base_of(env: Mapping[str, str]) -> str:
    """Where the API is: MODEL_RUNNER_HOST, else the port that Docker Engine publishes on loopback."""
    return (env.get("MODEL_RUNNER_HOST") or DEFAULT_BASE).rstrip("/")


def list_api(egress: Egress, base: str = DEFAULT_BASE) -> list[OutsideModel]:
    """What Docker Model Runner has. Raises Unavailable when it does not run, ManifestError for another server."""
    with egress.request("GET", f"{base}/models", redirects=0) as answer:
        if answer.status != 200:
            raise Unavailable(f"{base}/models answers {answer.status}", hint=_HINT)
        data = answer.read(MAX_LIST_BYTES)
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{base}/models is no JSON", hint=_HINT) from error
    found = []
    for entry in entries if isinstance(entries, list) else []:
        try:
            digest = check_digest(entry.get("id") if isinstance(entry, Mapping) else None)
        except CorralError:
            continue
        for label, ref in named(digest[7:], entry.get("tags")):
            found.append(OutsideModel("docker", ref, label, api=base, digest=digest))
    return found


def take_export(store: Store, egress: Egress, model: OutsideModel, held: ExitStack) -> tuple[Descriptor, int, int]:
    """Brings `model` into the store, each blob checked; its manifest's descriptor, its size, and the bytes added.

    Everything stays held while `held` is open, for no name points to it yet. Raises DigestMismatch, ManifestError,
    Unavailable, NotInRegistry, DiskFull.
    """
    with egress.request("GET", f"{model.api}/models/{model.digest}/export", redirects=0) as answer:
        if answer.status == 404:
            raise NotInRegistry(f"{model.label} is no longer there", hint="look again at what there is")
        if answer.status != 200:
            raise Unavailable(f"exporting {model.label} answers {answer.status}", hint=_HINT)
        manifest, sizes, added = _members(store, _Stream(answer), held)
    if manifest is None or digest_of(manifest) != model.digest:
        raise DigestMismatch(f"the export of {model.label} is another model", hint="update Docker Model Runner")
    data = decode_json(manifest, f"the manifest of {model.label}")
    read_artifact(data, {})
    parts = [descriptor_from(each) for each in [data.get("config"), *data["layers"]]]
    for part in parts:
        if sizes.get(part.digest) != part.size:
            raise ManifestError(f"the export of {model.label} lacks {part.digest}", hint="try again")
    held.enter_context(store.hold(model.digest, absent_ok=True))
    store.add_bytes(manifest)
    kind = data.get("mediaType")
    descriptor = Descriptor(kind if isinstance(kind, str) and kind else MANIFEST, model.digest, len(manifest))
    return descriptor, sum(part.size for part in parts), added + len(manifest)


class _Body(Protocol):
    def readinto(self, view: memoryview) -> int: ...


class _Stream:
    """The bytes of an answer, in exact pieces."""

    def __init__(self, body: _Body) -> None:
        self._body = body
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def some(self, count: int) -> memoryview:
        """Between 1 and `count` bytes, good until the next call."""
        got = self._body.readinto(self._buffer[: min(count, PIECE_BYTES)])
        if got == 0:
            raise Unavailable("the export broke off", hint="try again")
        return self._buffer[:got]

    def exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += self.some(count - len(data))
        return bytes(data)

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.some(count))


def _members(store: Store, stream: _Stream, held: ExitStack) -> tuple[bytes | None, dict[str, int], int]:
    """The manifest, the size of each blob, and the bytes added. Only such entries as an export has are taken."""
    manifest: bytes | None = None
    sizes: dict[str, int] = {}
    added = 0
    longer: int | None = None  # a size that did not fit into the header proper
    for _ in range(MAX_MEMBERS):
        header = stream.exactly(BLOCK)
        if not any(header):
            return manifest, sizes, added
        _check(header)
        kind, size = header[156:157], _octal(header[124:136])
        if kind == b"x":
            longer = _pax_size(stream.exactly(_bounded(size)))
            stream.skip(-size % BLOCK)
            continue
        size, longer = (size if longer is None else longer), None
        name = header[:100].partition(b"\0")[0].decode("ascii", "replace").removeprefix("./").rstrip("/")
        match = _BLOB.fullmatch(name)
        if kind == b"5":
            continue
        if kind not in (b"0", b"\0") or not (match or name == "manifest.json"):
            raise ManifestError(f"the export holds {name[:100]!r}, which does not belong there", hint=_HINT)
        if match:
            digest = f"sha256:{match[1]}"
            held.enter_context(store.hold(digest, absent_ok=True))
            added += _blob(store, stream, digest, size)
            sizes[digest] = size
        else:
            manifest = stream.exactly(_bounded(size))
        stream.skip(-size % BLOCK)
    raise ManifestError(f"the export has more than {MAX_MEMBERS} entries", hint=_HINT)


def _blob(store: Store, stream: _Stream, digest: str, size: int) -> int:
    if store.find(digest) is not None:
        stream.skip(size)
        return 0
    store.require_room(size)
    hashed = hashlib.sha256()
    with store.partial(digest, size) as part:
        with part.path.open("wb", buffering=0) as file:
            left = size
            while left:
                piece = stream.some(left)
                hashed.update(piece)
                left -= len(piece)
                while piece:
                    piece = piece[file.write(piece) :]
        if hashed.hexdigest() != digest[7:]:
            part.discard()
            raise DigestMismatch(f"the export's {digest} is something else", hint="the model is damaged there")
        part.finish(digest)
    return size


def _check(header: bytes) -> None:
    told = _octal(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != told:
        raise ManifestError("the export is no tar archive, or damaged", hint=_HINT)


def _octal(field: bytes) -> int:
    if field[:1] == b"\x80":  # GNU's form for sizes from 8 GiB on
        return int.from_bytes(field[1:], "big") & ((1 << 50) - 1)
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{0,12}", text):
        raise ManifestError("the export is no tar archive, or damaged", hint=_HINT)
    return int(text or b"0", 8)


def _bounded(size: int) -> int:
    if size > MAX_MANIFEST_BYTES:
        raise ManifestError(f"a header or manifest of {size} bytes is in the export", hint=_HINT)
    return size


def _pax_size(data: bytes) -> int | None:
    """The record `size` of a PAX header: Go writes one for files from 8 GiB on."""
    match: Any = re.search(rb"(?:^|\n)\d+ size=(\d{1,16})\n", data)
    return int(match[1]) if match else None
