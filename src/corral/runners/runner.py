"""The contract every runner keeps: it executes a `LaunchPlan` and tells how that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from corral.engines.plan import LaunchPlan
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `code` ≥ 0, or `signal`, or neither when nobody could see it."""

    code: int | None = None
    signal: int | None = None
    at_wall_s: float = 0.0
    asked: bool = False  # we had sent TERM or KILL before
    limit_bytes: int = 0  # its memory limit, where the kernel ended it or one of its processes for that; 0 = it did not
    why: str = ""  # in words, where it is no process of ours that ended


class Running(Protocol):
    """One engine that a runner started or adopted."""

    @property
    def unit(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    async def wait(self) -> Exit:
        """Returns once the engine ended; any number of tasks may wait, cancelling one harms nothing."""
        ...

    async def stop(self, grace_s: float) -> Exit:
        """TERM to the whole group, KILL after `grace_s`; returns the exit. Idempotent; waiting is bounded."""
        ...


@dataclass(frozen=True, slots=True)
class Survivor:
    """An engine that outlived an earlier daemon, as its runner remembers it."""

    running: Running
    plan: LaunchPlan
    log: Path
    started_wall_s: float


@dataclass(frozen=True, slots=True)
class Departed:
    """An engine of an earlier daemon that ended before this one came."""

    unit: str
    plan: LaunchPlan | None  # None when it cannot be read any more
    log: Path
    exit: Exit


@dataclass(frozen=True, slots=True)
class Preview:
    """The command that a start would run, and the environment that it would be given."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class Runner(Protocol):
    """Executes plans. `start` returns as soon as the process exists; readiness is the supervisor's business."""

    async def start(self, plan: LaunchPlan, log: Path) -> Running:
        """Starts `plan` with its output appended to the file `log`. Raises EngineMissing or StartFailed."""
        ...

    async def survivors(self) -> Sequence[Survivor]:
        """Engines of an earlier daemon of this state directory that still run. Those that cannot be adopted
        (no readable plan) have been ended."""
        ...

    async def departed(self) -> Sequence[Departed]:
        """Engines of an earlier daemon that ended while nobody looked, with how they ended. Told once."""
        ...

    def preview(self, plan: LaunchPlan) -> Preview:
        """What `start` would run, for people to read. Blocks for a moment; starts nothing. Raises EngineError."""
        ...

    async def aclose(self) -> None:
        """Looks at no engine any more. They go on."""
        ...

    def memory_bytes(self, running: Running) -> int | None:
        """Resident memory of the engine's process group now, or None where the platform does not tell."""
        ...
