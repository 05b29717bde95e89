"""`Limits`: from which figures on something counts as wrong. Pure."""

from __future__ import annotations

from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of the alerts. Times in seconds, shares from 0 to 1."""

    down_s: int = 60  # without an answer to a scrape
    failures: int = 3  # of one model's engines within 15 minutes
    waiting: int = 10  # requests for one model
    waiting_s: int = 120
    first_token_s: float = 10.0  # p95 of five minutes
    errors: float = 0.05  # of a model's requests, answered with 5xx
    memory: float = 0.95  # of a device's budget, as really held
    memory_free_bytes: int = 256 << 20  # of a device
    disk_free: float = 0.1  # of a file system
    stuck_s: int = 120  # a running download without a byte
    degraded_s: int = 300  # without the GPU that it should have
    key_budget: float = 0.9  # of what a key may use
