"""Wire types of the model store's routes: downloads, stored models, and what is done to them.

As in `api`: plain dataclasses, sizes in bytes, moments in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from corral.api import ErrorInfo

# Downloads


@dataclass(frozen=True, slots=True)
class PullAsk:
    """Body of `pull`."""

    ref: str  # as a person types it
    name: str | None = None  # what the store is to call it; without one, the full reference
    sha256: str | None = None  # of a URL's file
    update: bool = True  # look upstream although the store has the model


@dataclass(frozen=True, slots=True)
class UpdateAsk:
    """Body of `update`: which models of the store to refresh."""

    names: list[str] = field(default_factory=list)  # none = all that came from a registry


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One blob of a download."""

    digest: str | None
    title: str
    size: int | None
    done: int
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True)
class DownloadInfo:
    """One download, of this server's life or an earlier one's."""

    id: str
    ref: str  # in full
    name: str  # in the store
    state: str  # queued, resolving, running, paused, done, failed or cancelled
    blobs: list[BlobInfo]
    total: int | None
    done: int
    bytes_per_s: float | None
    eta_s: float | None
    error: ErrorInfo | None
    notes: list[str]  # what its user should know, such as which quantization was picked
    started_wall_s: float | None
    finished_wall_s: float | None
    digest: str | None  # of the manifest, once known

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class DownloadAsk:
    """Body of `downloads/pause`, `resume` and `cancel`."""

    id: str


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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is."""

    text: str
    done: int = 0
    total: int | None = None


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
