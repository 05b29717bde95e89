"""Models of Hugging Face: `hf.co/org/repo:QUANT`, one file of a repository, or a repository of safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from corral.artifact import Built, Facts, File, Role, build_docker
from corral.descriptors import Descriptor, digest_of
from corral.errors import DigestMismatch, EgressRefused, ManifestError, NotInRegistry
from corral.refs import Ref
from corral.registry import hub_account
from corral.registry.egress import Egress
from corral.registry.hub_files import HubFile
from corral.registry.pick import Picked, pick
from corral.registry.ranged import RangedBody, open_range
from corral.registry.source import RemoteBlob, RemoteModel

if TYPE_CHECKING:
    from corral.registry.hub import Hub, HubModel

MAX_SMALL_BYTES: Final = 16 << 20
MAX_SMALL_TOTAL: Final = 64 << 20
"""Files that git itself holds, which have no SHA-256 there, are fetched while resolving and checked by git's name of
them. Hugging Face takes no more than 10 MB of those per file."""

_GATED: Final = "if its page there asks for it, accept its conditions; then `hf auth login`, or set HF_TOKEN"


class HuggingFace:
    """A `Source`. What it gives is pinned to a commit, and the manifest made for it is the same each time."""

    def __init__(
        self,
        egress: Egress,
        *,
        endpoint: Callable[[], str] = hub_account.endpoint,
        token: Callable[[], str | None] = hub_account.token,
    ) -> None:
        self._egress = egress
        self._endpoint = endpoint
        self._token = token

    def resolve(self, ref: Ref) -> RemoteModel:
        """What `ref` means now: its commit, the files of the model, their digests. Blocks for some round trips."""
        hub = self._hub()
        where = f"hf.co/{ref.repository}"
        commit = hub.commit(ref.repository, ref.revision)
        picked = pick(hub.files(ref.repository, commit), where=where, wish=ref.tag, path=ref.file)
        files, blobs = self._files(hub, ref.repository, commit, picked)
        size = sum(file.descriptor.size for file in files if file.role in ("weights", "shard"))
        built = build_docker(files, Facts(picked.format, quantization=picked.quantization, size=size))
        if ref.digest not in (None, built.digest):
            hint = f"files changed there since; pull {ref.name} again, or pin a commit as in {where}@COMMIT"
            raise DigestMismatch(f"{ref.name} is now {built.digest} and not {ref.digest}", hint=hint)
        notes = (*picked.notes, f"{ref.revision or 'main'} is commit {commit[:12]}")
        annotations = {
            "org.opencontainers.image.source": f"https://huggingface.co/{ref.repository}",
            "org.opencontainers.image.revision": commit,
        }
        return RemoteModel(
            ref,
            (_config_blob(built), *_typed(blobs, built)),
            built.manifest,
            built.manifest_type,
            annotations=MappingProxyType(annotations),
            notes=notes,
        )

    def search(self, text: str, limit: int, *, only_gguf: bool = True) -> list[HubModel]:
        """The models most downloaded among those whose name has `text`. Blocks."""
        return self._hub().search(text, limit, only_gguf=only_gguf)

    def _hub(self) -> Hub:
        if hub_account.offline():
            raise EgressRefused("HF_HUB_OFFLINE is set, so Hugging Face is not asked", hint="unset it to go on")
        # Here and not above: a quarter of a second and 25 MB, for those who ask something of Hugging Face only.
        from corral.registry.hub import Hub

        return Hub(self._egress, self._endpoint(), self._token())

    def _files(self, hub: Hub, repository: str, commit: str, picked: Picked) -> tuple[list[File], list[RemoteBlob]]:
        """The files of the model as an artifact has them, and each different content once."""
        roles = _roles(picked)
        paths = _paths(picked, [file for _, file in roles])
        blobs: dict[str, RemoteBlob] = {}
        files: list[File] = []
        fetched = 0
        for (role, file), path in zip(roles, paths, strict=True):
            opener = partial(self._open, hub.url(repository, commit, file.path), f"{file.path} of {repository}")
            data = None
            digest = file.digest
            if digest is None:
                fetched += file.size
                if file.size > MAX_SMALL_BYTES or fetched > MAX_SMALL_TOTAL:
                    hint = "files of that size are kept there with a SHA-256; ask the repository's owner"
                    raise ManifestError(f"{file.path} of hf.co/{repository} has no SHA-256", hint=hint)
                data = _fetch(opener, file, repository)
                digest = digest_of(data)
            files.append(File(role, path, Descriptor("", digest, file.size)))
            blobs[digest] = RemoteBlob("", opener, digest, file.size, data, title=path)
        return files, list(blobs.values())

    def _open(self, url: str, what: str, offset: int = 0, length: int | None = None) -> RangedBody:
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return open_range(
            self._egress, url, offset, length, what=what, host="Hugging Face", headers=headers, hint=_GATED
        )


def _typed(blobs: Sequence[RemoteBlob], built: Built) -> list[RemoteBlob]:
    """`blobs` with the media types that their layers have in the manifest."""
    types = {layer["digest"]: layer["mediaType"] for layer in json.loads(built.manifest)["layers"]}
    return [replace(blob, media_type=types[blob.digest]) for blob in blobs]


def _roles(picked: Picked) -> list[tuple[Role, HubFile]]:
    """Every file with its role: of a split GGUF the first is opened and the others are found beside it."""
    later: Role = "shard" if picked.format == "gguf" else "weights"
    found: list[tuple[Role, HubFile]] = [("weights" if at == 0 else later, f) for at, f in enumerate(picked.weights)]
    extra: tuple[tuple[Role, HubFile | None], ...] = (
        ("mmproj", picked.mmproj),
        ("template", picked.template),
        ("license", picked.license),
    )
    found += [(role, file) for role, file in extra if file is not None]
    return found + [("config", file) for file in picked.others]


def _paths(picked: Picked, files: Sequence[HubFile]) -> list[str]:
    """GGUF files need no folders, unless two have one name; safetensors keep their tree."""
    names = [file.name for file in files]
    if picked.format == "gguf" and len(set(names)) == len(names):
        return names
    return [file.path for file in files]


def _fetch(opener: Callable[[int, int | None], RangedBody], file: HubFile, repository: str) -> bytes:
    """The content of a file that git holds, checked by git's own hash of it."""
    data = bytearray(file.size + 1)
    view, count = memoryview(data), 0
    body = opener(0, None)
    try:
        while count < len(data) and (more := body.readinto(view[count:])):
            count += more
    finally:
        body.close()
    content = bytes(view[:count])
    if hashlib.sha1(b"blob %d\0" % count + content, usedforsecurity=False).hexdigest() != file.oid:
        hint = "something on the way changes what is sent; try again, or check HF_ENDPOINT"
        raise DigestMismatch(f"{file.path} of hf.co/{repository} is not what its commit says", hint=hint)
    return content


def _config_blob(built: Built) -> RemoteBlob:
    def no_source(offset: int, length: int | None) -> RangedBody:
        raise NotInRegistry("a config made here is fetched from nowhere", hint="please report it")

    descriptor = built.config_descriptor
    return RemoteBlob(
        descriptor.media_type, no_source, descriptor.digest, descriptor.size, built.config, title="config"
    )
