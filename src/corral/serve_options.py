"""What `corral serve` was asked for: the one value that passes from the command line to the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Flags only: files and environment variables are read by the daemon itself."""

    config: Path | None = None  # None = the search order of the configuration
    listen: tuple[str, ...] = ()  # as written by the user; empty = as configured
    insecure: bool = False  # may listen beyond loopback without keys
    handover: bool = False  # takes over from the server that runs, with its engines
    idle_exit_s: float | None = None  # end after so many seconds without work; None = never
    log_level: str = "info"
    log_format: Literal["human", "json"] | None = None  # None = as configured
    log_requests: bool = False  # a line for each request; as configured too
    quiet: bool = False  # no greeting; warnings and errors still show
    json: bool = False  # the greeting as one line of JSON on standard output
