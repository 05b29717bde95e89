"""Wire types of the model store's routes: downloads, stored models, and what is done to them.

As in `api`: plain dataclasses, sizes in bytes, moments in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from corral.api_downloads import BlobInfo as BlobInfo
from corral.api_downloads import DownloadAsk as DownloadAsk
from corral.api_downloads import DownloadInfo as DownloadInfo
from corral.api_downloads import Progress as Progress
from corral.api_downloads import PullAsk as PullAsk
from corral.api_downloads import UpdateAsk as UpdateAsk
from corral.lazy_dataclass import dataclass

# Stored models


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One name of the store."""

    name: str
    digest: str
    size_bytes: int | None
    format: str
    architecture: str
    parameters: str
    quantization: str
    context: int | None
    at_wall_s: float | None  # when the name came to point to this digest
    used_wall_s: float | None = None  # when it was last served
    in_use: bool = False
    place: str | None = None  # of a read-only root: where its file lies
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FitInfo:
    """Predicted memory with a context of so many tokens, and whether this machine has it."""

    context: int
    bytes: int
    fit: str  # fits, fits when memory is freed, does not fit, unknown
    fits_gpu: bool | None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a model."""

    role: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of one stored model."""

    name: str
    names: list[str]  # all that point to it
    digest: str
    title: str
    flavour: str  # the packaging: docker, cncf, ollama, plain
    format: str
    architecture: str
    parameters: int | None
    quantization: str
    size_bytes: int
    context_length: int | None  # what it was made for
    context_size: int | None  # what its packager wants
    files: list[FileInfo]
    licenses: list[str]
    capabilities: list[str]
    template: str  # layer, header or none: where the chat template comes from
    system: str | None
    params: dict[str, Any]  # the model's own defaults, in Ollama's names
    footprint: list[FitInfo]
    memory_bytes: int | None  # available on this machine now
    template_text: str | None = None
    license_text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lineage: str = ""  # what it was made of by whom, in words


@dataclass(frozen=True, slots=True)
class Inspected:
    """A manifest and its config as they are."""

    ref: str
    digest: str
    media_type: str
    size_bytes: int | None
    manifest: dict[str, Any]
    config: dict[str, Any] | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PastInfo:
    """What a name pointed to, and until when."""

    digest: str
    at_wall_s: float
    why: str
    current: bool = False
    here: bool = True  # its blobs are still in the store


# What is done to them


@dataclass(frozen=True, slots=True)
class RemoveAsk:
    """Body of `store/remove`."""

    names: list[str]


@dataclass(frozen=True, slots=True)
class PruneAsk:
    """Body of `store/prune`. Without any of the first two only what nothing refers to goes."""

    older_than_s: float | None = None  # names not served, or pulled, for so long
    unused: bool = False  # names that no models.yaml entry uses
    keep: list[str] = field(default_factory=list)
    dry_run: bool = False
    conversations: bool = False  # all kept conversations, and nothing else


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did, to the byte."""

    names: list[str]
    blobs: int
    bytes: int
    kept: list[str] = field(default_factory=list)  # names that were to go, and why they did not
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class TagAsk:
    """Body of `store/tag`."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """A name and what it points to now."""

    name: str
    digest: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class RollbackAsk:
    """Body of `store/rollback`. Without a digest, the one before."""

    name: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class UsageModel:
    """What one name takes."""

    name: str
    bytes: int  # all its blobs
    own_bytes: int  # of them, what would be free without it
    external_bytes: int = 0  # of them, in files that are not the store's alone


@dataclass(frozen=True, slots=True)
class UsageInfo:
    """Every byte of the store. Named, kept, unreferenced, partial, placed and other sum to the total."""

    path: str
    models: list[UsageModel]
    named_bytes: int
    shared_bytes: int  # of the named: in models of several digests
    kept_bytes: int  # what only `rollback` needs
    unreferenced_bytes: int  # what `prune` would free
    partial_bytes: int  # downloads that are not whole
    placed_bytes: int  # unpacked files
    other_bytes: int  # indexes, records, locks
    total_bytes: int
    linked_bytes: int  # of the blobs: hard links of other tools' files
    external_bytes: int  # files elsewhere that the store refers to; not in the total
    free_bytes: int  # on its file system
    conversations_bytes: int = 0  # kept conversations, which lie elsewhere; not in the total


@dataclass(frozen=True, slots=True)
class VerifyAsk:
    """Body of `store/verify`."""

    names: list[str] = field(default_factory=list)  # none = all
    repair: bool = False


@dataclass(frozen=True, slots=True)
class DamageInfo:
    """One thing that is wrong in the store."""

    what: str
    text: str
    names: list[str]
    repaired: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found."""

    blobs: int
    bytes: int
    damage: list[DamageInfo]

    @property
    def clean(self) -> bool:
        return all(each.repaired for each in self.damage)


@dataclass(frozen=True, slots=True)
class PushAsk:
    """Body of `store/push`."""

    name: str
    target: str | None = None  # without one, where its name says


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a model went."""

    ref: str
    digest: str
    sent_bytes: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PackageAsk:
    """Body of `store/package`. Paths are of the server's machine."""

    path: str
    name: str
    license: str | None = None
    template: str | None = None
    mmproj: str | None = None
    lora: str | None = None
    context_size: int | None = None
    format: str = "docker"  # or cncf


@dataclass(frozen=True, slots=True)
class QuantizeAsk:
    """Body of `store/quantize`. Paths are of the server's machine."""

    to: str  # a type of llama.cpp's, such as Q4_K_M
    base: str | None = None  # a model of the store
    file: str | None = None  # or a GGUF file
    name: str | None = None  # without one, the base's with the type as its tag
    threads: int | None = None
    imatrix: str | None = None
    requantize: bool = False  # also what is quantized already


@dataclass(frozen=True, slots=True)
class ConvertAsk:
    """Body of `store/convert`. Paths are of the server's machine."""

    to: str  # F32, F16, BF16 or Q8_0
    name: str
    base: str | None = None  # a safetensors model of the store
    file: str | None = None  # or a folder with one


@dataclass(frozen=True, slots=True)
class Remade:
    """A model that was made of another one."""

    name: str
    digest: str
    before: str | None  # what the name pointed to
    lineage: str  # of what it was made, and how, in words
    base_bytes: int
    bytes: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class QuantizeType:
    """One type that weights can have."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class QuantizerInfo:
    """The tool that quantizes here."""

    path: str
    version: str
    types: list[QuantizeType]


@dataclass(frozen=True, slots=True)
class CreateAsk:
    """How a model is made of another one, or of blobs of the store. None and nothing leave what the base has."""

    name: str
    base: str | None = None  # a model of the store
    file: str | None = None  # a GGUF file of the server's machine
    files: dict[str, str] = field(default_factory=dict)  # digests of blobs, by the name of the file
    adapters: dict[str, str] = field(default_factory=dict)  # likewise
    template: str | None = None
    system: str | None = None
    licenses: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)  # in Ollama's names
    messages: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Created:
    """A model that was made."""

    name: str
    digest: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImportAsk:
    """Body of `store/import`."""

    peer: str  # ollama, docker, hf, lmstudio, llamacpp, or a file or folder
    names: list[str] = field(default_factory=list)
    everything: bool = False
    dry_run: bool = False  # only list what is there


@dataclass(frozen=True, slots=True)
class ImportedInfo:
    """One model of another tool."""

    name: str
    how: str  # hard link, reflink, reference, copy; "" while it is only listed
    bytes_added: int
    note: str
    size_bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ExportAsk:
    """Body of `store/export`: an OCI layout as a tar file, on the server's machine."""

    names: list[str]
    path: str


@dataclass(frozen=True, slots=True)
class Exported:
    """The file that was written."""

    path: str
    names: list[str]
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadAsk:
    """Body of `store/load`."""

    path: str


@dataclass(frozen=True, slots=True)
class LoadedInfo:
    """What came out of a tar file."""

    names: list[str]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One answer of a search."""

    name: str
    description: str
    downloads: int | None
    source: str


@dataclass(frozen=True, slots=True)
class LoginAsk:
    """Body of `login`."""

    host: str
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class LogoutAsk:
    """Body of `logout`."""

    host: str


@dataclass(frozen=True, slots=True)
class Done:
    """Something was done."""

    text: str
