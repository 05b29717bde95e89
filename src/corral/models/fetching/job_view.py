"""What is to be seen of a download: plain data, one moment of it."""

from __future__ import annotations

from typing import Any, Literal

from corral.lazy_dataclass import dataclass
from corral.refs import Ref

State = Literal["queued", "resolving", "running", "paused", "done", "failed", "cancelled"]
OVER: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class BlobView:
    """One file of a download."""

    digest: str | None
    title: str
    size: int | None
    done_bytes: int
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a download failed, or why it is tried again."""

    code: str
    message: str
    hint: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobView:
    """One download. `total` is None until all sizes are known; `started` and `finished` are wall seconds."""

    id: str
    ref: Ref
    name: str  # what the store calls the model when it is there
    state: State
    blobs: tuple[BlobView, ...]
    total: int | None
    done: int
    bytes_per_s: float | None
    eta_s: float | None
    error: JobError | None
    notes: tuple[str, ...]
    started: float
    finished: float | None
    digest: str | None  # of the manifest

    @property
    def over(self) -> bool:
        return self.state in OVER
