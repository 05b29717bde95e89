"""Wire types of downloads. Apart from `api_store`, so that `corral pull` starts without making the forty of that."""

from __future__ import annotations

from dataclasses import field

from corral.api import ErrorInfo
from corral.lazy_dataclass import dataclass


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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is."""

    text: str
    done: int = 0
    total: int | None = None
