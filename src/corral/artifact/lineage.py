"""What a model was made of, and how: annotations of its manifest, written and read. Pure.

Source of the `base` keys: OCI image-spec v1.1, annotations.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from corral.lazy_dataclass import dataclass

BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
BASE_NAME: Final = "org.opencontainers.image.base.name"
_OWN: Final = "corral.lineage."
MOST: Final = 1000
"""Characters of a value that are believed; manifests come from anybody."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """How a model came about. Texts are "" where nothing says them."""

    how: str  # "quantized" or "converted"
    to: str  # the type of its weights, such as Q4_K_M
    tool: str  # the program, with its version
    base: str = ""  # what it was made of: a name of the store, or a file's
    base_digest: str = ""  # of that model's manifest
    file_digest: str = ""  # of the file, where it was made of a file of no store
    imatrix: str = ""  # the digest of the importance matrix that was used

    def annotations(self) -> dict[str, str]:
        """The same for a manifest."""
        named = {BASE_NAME: self.base, BASE_DIGEST: self.base_digest}
        own = {f"{_OWN}{key}": getattr(self, key) for key in _KEYS}
        return {key: value for key, value in {**named, **own}.items() if value}

    def words(self) -> str:
        """One line for people."""
        digest = self.base_digest or self.file_digest
        base = f"{self.base} ({digest[:19]}…)" if digest else self.base
        matrix = f", importance matrix {self.imatrix[:19]}…" if self.imatrix else ""
        return f"{self.how} to {self.to} from {base or 'something unknown'} by {self.tool}{matrix}"


_KEYS: Final = tuple(each.name for each in fields(Lineage) if each.name not in ("base", "base_digest"))


def lineage_of(manifest: Mapping[str, Any]) -> Lineage | None:
    """What a manifest says of its model's making; None where it says nothing, or no sense."""
    said = manifest.get("annotations")
    if not isinstance(said, dict) or not isinstance(said.get(f"{_OWN}how"), str):
        return None

    def text(key: str) -> str:
        value = said.get(key)
        return " ".join(value[:MOST].split()) if isinstance(value, str) else ""

    return Lineage(base=text(BASE_NAME), base_digest=text(BASE_DIGEST), **{key: text(f"{_OWN}{key}") for key in _KEYS})
