"""Wire types of `GET /control/live`: the server at this moment, as `corral top` and the web console show it."""

from __future__ import annotations

from dataclasses import field

from corral.api import EventInfo
from corral.api_downloads import DownloadInfo
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LiveDevice:
    """One device. What nobody tells is null."""

    name: str  # "cpu", "gpu0" …
    words: str
    total_bytes: int | None
    free_bytes: int | None
    budget_bytes: int | None  # what models may take together
    by_model: dict[str, int]  # what Corral's models hold of it, in bytes
    others_bytes: int | None
    utilisation: float | None  # 0 to 1, over the last sample
    temperature_c: float | None
    power_w: float | None
    power_limit_w: float | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LiveUnit:
    """One engine. Rates are of the last ten seconds, times of the last five minutes; null where there was nothing."""

    model: str
    unit: str
    state: str
    engine: str
    runner: str
    device: str
    degraded: str | None
    reason: str | None
    busy: int
    slots: int
    queued: int
    tokens_per_s: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    context: int  # tokens per slot
    context_used: int | None  # of the fullest slot's last request
    held_bytes: int | None  # what only its end gives back, on all devices
    load_ms: float | None
    restarts: int
    requests: int  # since the server started
    errors: int
    idle_stop_in_s: float | None
    expected_wait_s: float | None
    since_wall_s: float
    history: list[float] = field(default_factory=list)  # tokens per second, of each of the last 60, oldest first


@dataclass(frozen=True, slots=True)
class Live:
    """Everything at one moment."""

    wall_s: float
    version: str
    pid: int
    started_wall_s: float
    in_flight: int
    waiting: int
    tokens_per_s: float
    requests_per_s: float
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    devices: list[LiveDevice]
    units: list[LiveUnit]
    downloads: list[DownloadInfo]  # that are not over, and those that ended in the last minute
    events: list[EventInfo]  # the newest 50, oldest first
    history: list[float] = field(default_factory=list)  # tokens per second of all, as above
