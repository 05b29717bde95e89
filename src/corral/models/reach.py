"""Everything that reaches out to registries, made from the settings: the client, credentials, sources, signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from corral.config.settings import Settings
from corral.errors import CorralError
from corral.models.signing.lookup import verifier
from corral.models.signing.policy import load_policy
from corral.refs import Ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress
from corral.registry.huggingface import HuggingFace
from corral.registry.oci import OciRegistry
from corral.registry.ollama import OllamaRegistry
from corral.registry.policy import EgressPolicy
from corral.registry.search import Search
from corral.registry.source import RemoteModel, Source
from corral.registry.url import UrlSource


def egress_policy(settings: Settings) -> EgressPolicy:
    """What the configuration lets the one HTTP client do."""
    each = settings.registries.items()
    return EgressPolicy(
        allow=settings.allow_registries,
        private_addresses=tuple(host for host, registry in each if registry.private),
        insecure=tuple(host for host, registry in each if registry.insecure),
        ca_files=MappingProxyType({host: Path(registry.ca) for host, registry in each if registry.ca is not None}),
        mirrors=MappingProxyType({host: registry.mirrors for host, registry in each if registry.mirrors}),
    )


class Reach:
    """One configuration's way out. Replaced as a whole when the configuration changes."""

    def __init__(self, settings: Settings, config_dir: Path, warn: Callable[[str], None]) -> None:
        self.egress = Egress(egress_policy(settings))
        self.auth = Auth(self.egress, config_dir, warn=warn)
        self.oci = OciRegistry(self.egress, self.auth)
        hub = HuggingFace(self.egress)
        self.search = Search(self.egress, hub=hub)
        self.sources: Mapping[str, Source] = {
            "oci": self.oci,
            "ollama": OllamaRegistry(self.egress),
            "hf": hub,
            "url": UrlSource(self.egress),
        }
        self._required = settings.require_signed

    def verify(self, ref: Ref, digest: str) -> None:
        """Raises SignatureError when a policy does not let `digest` in as `ref`; ConfigError for a bad key."""
        if self._required:
            verifier(load_policy(self._required), self.oci)(ref, digest)


class Current:
    """A source that is always the newest configuration's."""

    def __init__(self, kind: str, reach: Callable[[], Reach]) -> None:
        self._kind, self._reach = kind, reach

    def resolve(self, ref: Ref) -> RemoteModel:
        source = self._reach().sources.get(self._kind)
        if source is None:
            raise CorralError(f"{self._kind} is no kind of source")
        return source.resolve(ref)
