"""References to models: `ai/smollm2`, `hf.co/org/repo:Q4_K_M`, `ollama://llama3.2`, a URL, a file. Pure."""

from __future__ import annotations

from typing import Literal

from corral.lazy_dataclass import dataclass

Kind = Literal["oci", "ollama", "hf", "url", "file"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference in full. `name` is what the store's index calls the model; `digest` pins its manifest."""

    kind: Kind
    host: str = ""  # "docker.io", "ghcr.io", "localhost:5000", "registry.ollama.ai", "hf.co"
    repository: str = ""  # "ai/smollm2", "library/llama3.2", "org/repo"; for url and file the whole URL or path
    tag: str = ""  # "latest"; for hf the quantization, "" = the default
    digest: str | None = None  # "sha256:…"
    file: str = ""  # hf: one file of the repository
    revision: str = ""  # hf: a branch, tag or commit; "" = main

    @property
    def name(self) -> str:
        """The reference without its digest, in its one full spelling. Of a URL, without what signs it: names are shown
        and kept, and a signature is a secret that changes each time."""
        if self.kind in ("url", "file"):
            return _unsigned(self.repository.partition("#")[0]) if self.kind == "url" else self.repository
        name = f"{self.host}/{self.repository}"
        if self.file:
            name += f"/{self.file}"
        if self.tag:
            name += f":{self.tag}"
        return f"{name}@{self.revision}" if self.revision else name

    def __str__(self) -> str:
        # What must be at a URL stands behind its #.
        full = _unsigned(self.repository) if self.kind == "url" else self.name
        return f"{full}@{self.digest}" if self.digest else full


def _unsigned(url: str) -> str:
    if "?" not in url:
        return url
    from corral.hidden import unsigned

    return unsigned(url)
