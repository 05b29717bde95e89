"""What a model artifact consists of: files with roles and checked paths."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import field
from typing import Final, Literal

from corral.descriptors import Descriptor
from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass

Role = Literal[
    "weights", "shard", "mmproj", "adapter", "draft", "template", "license", "params", "system", "messages", "config",
    "other",
]  # fmt: skip
"""`weights` is what an engine opens: the one GGUF file, the first of a split one, or each safetensors file. `shard` is
each further file of a split GGUF."""

Packing = Literal["raw", "tar", "tar+gzip", "tar+zstd"]
Flavour = Literal["docker", "cncf", "ollama", "plain"]

MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 16
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class File:
    """One layer. `path` is where it goes in the model's directory; of a packed one (`packing` is not raw), its name."""

    role: Role
    path: str
    descriptor: Descriptor
    packing: Packing = "raw"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest and its config say. Texts are as their packager wrote them, "" where they say nothing."""

    flavour: Flavour
    format: str  # "gguf", "safetensors", "dduf"; "" when only the content of its archives can tell
    files: tuple[File, ...]
    context_size: int | None = None  # what the packager wants it served with, in tokens
    parameters: str = ""
    quantization: str = ""
    architecture: str = ""
    name: str = ""
    created: str = ""
    licenses: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()  # what the config claims: tools, vision, thinking …
    config: Descriptor | None = field(default=None, repr=False)

    def of(self, *roles: Role) -> tuple[File, ...]:
        """The files with one of `roles`, in order."""
        return tuple(file for file in self.files if file.role in roles)

    @property
    def packed(self) -> bool:
        """Whether any file is inside an archive."""
        return any(file.packing != "raw" for file in self.files)

    @property
    def size(self) -> int:
        """The bytes of all layers as they are stored."""
        return sum({file.descriptor.digest: file.descriptor.size for file in self.files}.values())


def safe_path(text: object) -> str:
    """`text` as a relative path with `/` between its parts, one that cannot lead out of a directory.

    Raises ManifestError for anything else: absolute, `..`, backslashes, control or invisible characters, too long.
    """
    if not isinstance(text, str):
        raise _refused(text, "it is no text")
    path = text
    while path.startswith("./"):
        path = path[2:]
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise _refused(text, "it is no valid Unicode") from None
    parts = path.split("/")
    if not path or len(encoded) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise _refused(text, "it is empty, too long or too deep")
    if path.startswith("/") or "\\" in path or _DRIVE.match(path):
        raise _refused(text, "it is no relative path")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused(text, "it has the part '', '.' or '..'")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise _refused(text, "one of its names is too long")
    if any(unicodedata.category(char).startswith("C") for char in path):
        raise _refused(text, "it has control or invisible characters")
    return path


def _refused(text: object, why: str) -> ManifestError:
    return ManifestError(
        f"the path {repr(text)[:100]} is refused: {why}", hint="whoever packaged this model named a file unsafely"
    )
