"""Models of Ollama's registry: `ollama://name:tag` and `registry.ollama.ai/owner/name:tag`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from corral.descriptors import DOCKER_MANIFEST, MAX_MANIFEST_BYTES, Descriptor, decode_json, descriptor_from, digest_of
from corral.errors import DigestMismatch, ManifestError, RegistryError
from corral.refs import Ref
from corral.registry.answers import failure
from corral.registry.egress import Egress, Response
from corral.registry.ollama_key import OllamaTokens
from corral.registry.ranged import RangedBody, range_header, ranged
from corral.registry.source import RemoteBlob, RemoteModel

MAX_LAYERS: Final = 4096
_LAYER: Final = "application/vnd.ollama.image."
_Got = TypeVar("_Got")


class OllamaRegistry:
    """A `Source`. The manifest is kept as it is there, so that a model's digest is the one Ollama shows.

    A host's mirrors are asked first; what they cannot give comes from the host itself.

    Source: Ollama's `server/images.go` and `download.go` (0.33): manifests and blobs as in a registry of images, where
    a blob's address redirects to storage elsewhere.
    """

    def __init__(self, egress: Egress, *, key: Path | None = None) -> None:
        """`key` is the private key that stands for the user; None = the one of `ollama`. Used when asked for only."""
        self._egress = egress
        self._tokens = OllamaTokens(egress, key)

    def resolve(self, ref: Ref) -> RemoteModel:
        """What `ref` means now. Blocks for one round trip."""
        raw = self._from_any(ref, partial(self._manifest, ref))
        manifest = decode_json(raw, f"the manifest of {ref.name}")
        config, layers = _described(manifest, ref)
        blobs: dict[str, RemoteBlob] = {}
        for each in (config, *layers):
            title = _kind(each) or "config"
            opener = partial(self._open, ref, each.digest, f"the {title} of {ref.name}")
            blob = RemoteBlob(each.media_type, opener, each.digest, each.size, title=title)
            if blobs.setdefault(each.digest, blob).size != each.size:
                raise ManifestError(f"{ref.name} gives {each.digest} two sizes", hint="the manifest is damaged")
        kind = manifest.get("mediaType")
        return RemoteModel(ref, tuple(blobs.values()), raw, kind if isinstance(kind, str) and kind else DOCKER_MANIFEST)

    def _manifest(self, ref: Ref, host: str) -> bytes:
        path = f"manifests/{ref.tag or ref.digest or 'latest'}"
        with self._get(host, ref.repository, path, {"Accept": DOCKER_MANIFEST}) as response:
            if response.status != 200:
                raise failure(response, f"model {ref.name}", host)
            raw = response.read(MAX_MANIFEST_BYTES)
        found = digest_of(raw)
        if ref.digest not in (None, found):
            hint = f"the tag has moved; pull {ref.name} as it is now, or go back with: corral rollback {ref.name}"
            raise DigestMismatch(f"{ref.name} is now {found} and not {ref.digest}", hint=hint)
        return raw

    def _open(self, ref: Ref, digest: str, what: str, offset: int = 0, length: int | None = None) -> RangedBody:
        def get(host: str) -> RangedBody:
            response = self._get(host, ref.repository, f"blobs/{digest}", range_header(offset, length))
            return ranged(response, offset, length, what=what, host=host)

        return self._from_any(ref, get)

    def _get(self, host: str, repository: str, path: str, headers: Mapping[str, str]) -> Response:
        base = self._egress.base_url(host)
        url = f"{base}/v2/{repository}/{path}"
        response = self._egress.request("GET", url, headers={**headers, **self._tokens.headers(host, repository)})
        if response.status == 401 and self._tokens.renew(base, host, repository, response.headers):
            response.close()
            response = self._egress.request("GET", url, headers={**headers, **self._tokens.headers(host, repository)})
        return response

    def _from_any(self, ref: Ref, get: Callable[[str], _Got]) -> _Got:
        for mirror in self._egress.policy.mirrors.get(ref.host, ()):
            try:
                return get(mirror)
            except RegistryError:
                continue
        return get(ref.host)


def _described(manifest: Mapping[str, Any], ref: Ref) -> tuple[Descriptor, list[Descriptor]]:
    """The config and the layers of a model that can be served from files. Raises ManifestError."""
    listed = manifest.get("layers")
    if not isinstance(listed, list) or not isinstance(manifest.get("config"), Mapping):
        raise ManifestError(f"the manifest of {ref.name} has no config or no layers", hint="the registry is damaged")
    if len(listed) > MAX_LAYERS:
        raise ManifestError(f"the manifest of {ref.name} has {len(listed)} layers", hint=f"{MAX_LAYERS} are allowed")
    layers = [descriptor_from(each) for each in listed]
    kinds = {_kind(layer) for layer in layers}
    if "model" not in kinds:
        if "tensor" in kinds:
            hint = "it is for Ollama's own engine only; choose a tag of the model that is GGUF"
            raise ManifestError(f"{ref.name} is kept as single tensors and not as a GGUF file", hint=hint)
        hint = "models whose tag ends in cloud run on Ollama's servers and cannot be pulled"
        raise ManifestError(f"{ref.name} has no weights", hint=hint)
    return descriptor_from(manifest["config"]), layers


def _kind(layer: Descriptor) -> str:
    """`model`, `template` … of Ollama's own media types; "" of any other."""
    return layer.media_type.removeprefix(_LAYER).partition(";")[0] if layer.media_type.startswith(_LAYER) else ""
