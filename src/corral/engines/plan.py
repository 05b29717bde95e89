"""`LaunchPlan`: what would run. Runners execute it, `deploy` prints it; nothing in it is live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from corral.config.settings import Rung
from corral.engines.placement import TOP, UNKNOWN, Room, Step
from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import Parts

Origin = Literal["estimated", "probed", "measured"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory a unit takes, in bytes by device (`"cpu"`, `"gpu0"` …), and where the figure comes from."""

    bytes_by_device: Mapping[str, int]
    origin: Origin = "estimated"
    parts: Mapping[str, Parts] = field(default_factory=lambda: MappingProxyType({}))  # the same by component, if known
    growth: int = 0  # of the processor's: what it comes to while it runs, the engine's cache of earlier prompts
    load_s: float | None = None  # how long the newest load took, where one was measured
    mapped: int = 0  # of the processor's: weights in a mapped file, which need not be in memory all at once
    asleep: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # while it sleeps; empty: it cannot
    foretold: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({})
    )  # of a measured one: the prediction

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_by_device.values())

    @property
    def predicted(self) -> Mapping[str, int]:
        """What was predicted, in bytes by device, whatever was measured since."""
        return self.foretold if self.origin == "measured" else self.bytes_by_device


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens: a unix socket (preferred) or TCP, and what a server wants there that somebody else
    runs."""

    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    model: str = ""  # what it calls its model; "" = as Corral does
    key: str = field(default="", repr=False)  # that it wants with each request; never shown

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix:{self.socket}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Probe:
    """How readiness shows: GET `path` answers 200. Before that the engine refuses, or answers 503.

    `canary` is the smallest request that makes it compute, as a path with a JSON body; "" for none. `counters` is where
    it counts what it has done, "" where it does not: llama.cpp's slots, or figures as Prometheus reads them.
    """

    path: str = "/health"
    timeout_s: float = 2.0
    canary: str = "/completion"
    canary_body: str = '{"prompt": " ", "n_predict": 1, "cache_prompt": false}'
    counters: str = "/slots"
    pause_s: float = 0.0  # between two tries; 0 = as short as a process wants that was just started


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder the engine must see."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the operating system keeps of everything an engine runs."""

    memory_bytes: int
    pids: int  # threads count as well


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One engine process with one model, as data."""

    unit: str  # unit id, `<model>.<generation>`
    model: str
    generation: int
    engine: str  # "llama.cpp"
    engine_version: str
    argv: tuple[str, ...]
    endpoint: Endpoint
    footprint: Footprint
    probe: Probe = Probe()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: Path | None = None
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    context: int = 0  # tokens per slot as planned; 0 = the engine decides
    slots: int = 1
    runner: str = "process"  # what it runs in
    leash: Literal["survive", "die-with-daemon"] = "survive"
    warnings: tuple[str, ...] = ()  # what the user should see in `ps` and the log
    room: Room = UNKNOWN  # what it was planned for; the same room and step give the same plan again
    step: Step = TOP
    left: tuple[Rung, ...] = ()  # what could still be made smaller
    placement: str = ""  # where its layers are, in words; "" = the engine decides
    degraded: str = ""  # "cpu (why)" where it does without a GPU that it should have
    awaits_gpu: bool = False  # one that was there before, and may be back
    image: str = ""  # of a container, as it is called; `argv` is inside it then
    image_id: str = ""  # and what that name stood for
    nodes: tuple[str, ...] = ()  # devices that a container is given: /dev/dri/renderD128, nvidia.com/gpu=0
    shared_bytes: int = 0  # memory that its processes may share inside a container; 0 = none
    makes_code: bool = False  # it compiles what it then loads, so a container's /tmp must allow that
    sleep: int = 0  # at which level it can sleep; 0 = it cannot, or is not to
    says_more: bool = False  # it can be told to report its buffers, by flags (`report.WORDY`) that nobody else has set
    sandbox: str = ""  # what a plain process is shut into: "bubblewrap", which is in `argv` then
    limits: Limits | None = None  # of a plain process, by cgroup

    @property
    def ours(self) -> bool:
        """Whether its engine is Corral's to start and end."""
        return self.runner != "server"
