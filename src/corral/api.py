"""Wire types of Corral's own control API: what `/control` answers and the client reads.

They are plain dataclasses. `dump` turns one into JSON-ready data and `load` does the reverse, ignoring fields it
does not know, so that a newer server and an older client understand each other.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import field
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from corral.lazy_dataclass import dataclass

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One configured model."""

    name: str
    aliases: list[str]
    source: str
    engine: str
    runner: str
    state: str  # its unit's state
    size_bytes: int | None  # of the model file; None while it is missing
    context: int | None
    gpu_layers: int | str
    parallel: int
    port: int | None
    idle_timeout_s: float | None
    preload: bool
    pin: bool
    priority: int
    exclusive: bool
    group: str | None
    default: bool = False
    problem: str | None = None  # why it cannot start, where that is known without starting it


@dataclass(frozen=True, slots=True)
class UnitInfo:
    """One supervised engine."""

    model: str
    unit: str  # id, `<model>.<generation>`
    generation: int
    state: str
    engine: str
    engine_version: str
    runner: str
    device: str
    endpoint: str
    pid: int | None
    memory_bytes: int | None  # resident now, pages of its files included
    footprint_bytes: int | None  # predicted or measured, see footprint_origin
    footprint_origin: str | None
    context: int  # tokens per slot
    slots: int
    port: int | None  # the model's own listener, if any
    busy: int  # leases out
    queued: int  # requests waiting for this model
    since_wall_s: float  # when the state was entered
    ready_wall_s: float | None
    load_ms: float | None  # spawn to ready, last time
    idle_stop_in_s: float | None  # None: busy, pinned, or never
    restarts: int
    reason: str | None  # why it is in this state, in words
    warnings: list[str] = field(default_factory=list)
    placement: str = ""  # where its layers are, in words; empty: the engine decided
    degraded: str | None = None  # "cpu (why)" while it does without a GPU that it should have
    expected_wait_s: float | None = None  # of a request that would join the queue now; None: nobody waits
    waits_for: str | None = None  # what those who wait lack, in words, where that is memory
    kept: str | None = None  # "pin" or "ready" while its schedule keeps it
    gpu_bytes: int | None = None  # of the footprint, on GPUs
    held_bytes: int | None = None  # what only its end gives back, on all devices; null before the first look


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One thing that was looked at."""

    name: str  # "server", "model" (none has that name), "process", "health" (its own answer), "canary" (one token)
    ok: bool
    text: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class HealthInfo:
    """Whether the server, or a model, is well."""

    ok: bool
    model: str | None  # none: the server
    checks: list[HealthCheck]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One place that models can be in: the processor, or a GPU. A size is null where nothing tells."""

    name: str  # "cpu", "gpu0" …
    vendor: str
    words: str
    total_bytes: int | None
    free_bytes: int | None
    used_bytes: int  # by Corral's own engines
    others_bytes: int | None  # by everything else
    budget_bytes: int | None  # of all models together: as configured, at most all of it less the headroom
    headroom_bytes: int  # left free
    source: str  # who says so
    shared: bool  # its memory is the machine's own
    problem: str | None = None  # why it cannot be used
    utilisation: float | None = None  # how busy it was just now, 0 to 1
    temperature_c: float | None = None
    power_w: float | None = None  # what it draws
    power_limit_w: float | None = None  # what it may draw


@dataclass(frozen=True, slots=True)
class Status:
    """The server as a whole."""

    version: str
    pid: int
    started_wall_s: float
    uptime_s: float
    listen: list[str]
    config_file: str | None
    state_dir: str
    max_active: int | None
    resident: int
    waiting: int
    in_flight: int
    memory_bytes: int  # of the daemon itself
    models: int
    budgets: dict[str, int]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EventInfo:
    """One entry of the event log."""

    seq: int
    wall_s: float
    kind: str  # "unit.state", "request.granted", "scheduler.evict", "config.reloaded" …
    model: str | None
    unit: str | None
    text: str  # the same in words
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened to a unit, in words."""

    wall_s: float
    after_s: float  # since its chapter began
    text: str
    kind: str  # of the event that it was
    seq: int


@dataclass(frozen=True, slots=True)
class Chapter:
    """One start of a unit and what became of it."""

    generation: int | None  # None: nothing was started, or it is not known any more
    began_wall_s: float
    lines: list[StoryLine]


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to a model's engines, and why; the newest last."""

    model: str
    chapters: list[Chapter]
    left_out: int = 0  # older lines that were not asked for


@dataclass(frozen=True, slots=True)
class MountInfo:
    """A file or folder of this machine that an engine sees."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """What the next start of a model would run. Nothing of it runs yet."""

    model: str
    unit: str
    engine: str
    engine_version: str
    runner: str
    argv: list[str]  # the engine's own command line; in a container: inside it
    command: list[str]  # what is run on this machine for it
    env: dict[str, str]  # in which it is run
    endpoint: str
    mounts: list[MountInfo]
    devices: list[str]  # where its memory is: "cpu", "gpu0" …
    nodes: list[str]  # devices that a container is given
    image: str | None
    image_id: str | None
    footprint: dict[str, int]  # bytes by device
    footprint_origin: str
    memory_limit_bytes: int | None
    pids_limit: int | None
    context: int
    slots: int
    placement: str = ""
    degraded: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelAction:
    """Body of `start`, `stop` and `restart`."""

    model: str
    wait: bool = True  # answer only once the unit is ready (or stopped)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What `start`, `stop` and `restart` did."""

    model: str
    state: str
    changed: bool
    took_ms: float
    text: str


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What `reload` changed."""

    file: str | None
    added: list[str]
    removed: list[str]
    changed: list[str]
    needs_restart: list[str]  # global keys that only a restart of the server takes up
    text: str


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error, as every control route answers it under the key `error`."""

    code: str
    message: str
    hint: str
    status: int
    details: dict[str, Any] = field(default_factory=dict)


def dump(value: Any) -> Any:
    """`value` (a wire type, or lists and dicts of them) as JSON-ready data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: dump(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(item) for item in value]
    return value


def load(kind: type[T], data: Any) -> T:
    """`data` (decoded JSON) as the wire type `kind`. Raises TypeError when a field is missing or no object is given."""
    if not isinstance(data, dict):
        raise TypeError(f"{kind.__name__} wants an object, got {type(data).__name__}")
    known = {name: _load_value(hint, data[name]) for name, hint in _fields(kind).items() if name in data}  # type: ignore[arg-type]
    return kind(**known)


@lru_cache(256)
def _fields(kind: type[Any]) -> dict[str, Any]:
    """Names and types of a wire type's fields. Finding them out costs more than all else, and lists repeat them."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _load_value(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return load(hint, value)
    if origin is list and isinstance(value, list):
        (item,) = get_args(hint)
        return [_load_value(item, each) for each in value]
    if origin in (typing.Union, types.UnionType) and value is not None:
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return _load_value(inner[0], value) if len(inner) == 1 else value
    return value
