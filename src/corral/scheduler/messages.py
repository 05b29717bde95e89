"""The scheduler's vocabulary: events say what happened, commands what is to be done.

Those of every request are named tuples, which are made in a third of the time of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import NamedTuple

from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.scheduler.state import INFINITY, Cause, Keep, Policy, Spec


# Events: what happened.
class Asked(NamedTuple):
    """A request wants a lease (or, with `lease=False`, only the unit ready)."""

    waiter: int
    model: str
    deadline: float
    lease: bool = True
    force: bool = False  # try even while the unit is backing off
    key: str = ""  # who asks: keys take turns
    keep_s: float | None = None  # from now on: idle time until its stop; 0 = after this one, inf = pinned


@dataclass(frozen=True, slots=True)
class Left:
    """A waiting request gave up its place."""

    waiter: int


class Returned(NamedTuple):
    """A lease ended."""

    waiter: int
    model: str


@dataclass(frozen=True, slots=True)
class BecameReady:
    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A unit's process is gone. It is not started again before `retry_at`.

    `error` when it never came up: requests that wait for it are refused with that, now and until `retry_at`. After a
    crash (no `error`, a `retry_at`) they wait for the next start instead.
    """

    model: str
    generation: int
    error: CorralError | None = None
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Planned:
    """What was asked for by `Plan` is there: that start would know what to run."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Slept:
    """A unit gave its memory back and keeps its process."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """A unit dropped a connection; whether its process ended is known in a moment."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Paused:
    """A unit gets no new work while this is `on`: it passes over a request that it has for those that came later."""

    model: str
    generation: int
    on: bool


@dataclass(frozen=True, slots=True)
class Adopted:
    """An engine of an earlier daemon is ready."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants the model stopped; running answers get the drain time, waiting requests an error.

    `anew`: it is only one unit that should be another process, once it has nothing to do, `within_s` at most; who waits
    goes on waiting.
    """

    model: str
    why: str
    anew: bool = False
    within_s: float = INFINITY
    cause: Cause = field(default="asked", compare=False)


@dataclass(frozen=True, slots=True)
class Mended:
    """What the model's last start failed for may be over: it need not wait for its next try."""

    model: str


@dataclass(frozen=True, slots=True)
class Configured:
    """The set of models or the policy changed. Units whose name is in `outdated` finish what they have, then stop."""

    specs: Mapping[str, Spec]
    policy: Policy
    outdated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """The devices' memory, in bytes, as a reading that began at `at` found it. It also ends the wait after a `Look`.

    `taken` is what single units were seen to hold, by their scheduler's names; a unit that is still loading and not
    in it counts as if it had taken nothing yet. A device that is not in `free` is not judged.
    """

    free: Mapping[str, int]
    total: Mapping[str, int]
    at: float
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model takes, in bytes by device. `real`: seen in a load of it, or what its next start is planned to take;
    else a prediction, which is only taken where nothing is known, or no unit of it is there."""

    model: str
    footprint: Mapping[str, int]
    real: bool = True
    load_s: float | None = None  # how long its newest load took, if that is known
    mapped: int = 0  # see `Spec.mapped`
    asleep: Mapping[str, int] = field(default_factory=dict)  # see `Spec.asleep`


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Which models their schedules want now; the others' do not."""

    keep: Mapping[str, Keep]


@dataclass(frozen=True, slots=True)
class Closed:
    """Corral ends: waiting requests are refused, nothing new begins."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed."""


Event = (
    Asked
    | Left
    | Returned
    | BecameReady
    | Ended
    | Planned
    | Slept
    | Doubted
    | Paused
    | Adopted
    | StopAsked
    | Mended
    | Configured
    | MemorySeen
    | Measured
    | Scheduled
    | Closed
    | Ticked
)
"""`model` is a unit's name in those that speak of one unit (`BecameReady`, `Ended`, `Doubted`, `Adopted`, `Returned`),
and so it is in commands; the first unit of a model has the model's name."""


# Commands: what is to be done.
@dataclass(frozen=True, slots=True)
class Start:
    model: str
    generation: int
    although: str = ""  # what speaks against it, where it is done all the same


@dataclass(frozen=True, slots=True)
class Stop:
    model: str
    generation: int
    why: str
    cause: Cause = field(default="asked", compare=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Have the unit give its memory back; it ends where it cannot."""

    model: str
    generation: int
    why: str
    cause: Cause = field(default="asked", compare=False)


@dataclass(frozen=True, slots=True)
class Wake:
    """Have a sleeping unit serve again; it ends where it cannot."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Show the unit as draining: it takes no new work."""

    model: str
    generation: int
    why: str


class Grant(NamedTuple):
    waiter: int
    model: str
    generation: int
    queued_s: float
    load_s: float
    swap_s: float
    position: int = 0  # in the line when it began to wait; 0 = it did not
    lacked: str = ""  # the memory that the start it waited for had to wait for, in words


@dataclass(frozen=True, slots=True)
class Reject:
    waiter: int
    error: CorralError


class WakeAt(NamedTuple):
    """Post `Ticked` at this time, or earlier."""

    at: float


@dataclass(frozen=True, slots=True)
class Look:
    """Read the devices' memory now and post `MemorySeen`, also when that fails: with nothing in it."""


@dataclass(frozen=True, slots=True)
class Lacks:
    """A start has to wait for memory that is not Corral's to free: say so. Once for each start."""

    model: str
    why: str
    short: Mapping[str, int]  # what is missing, by device


@dataclass(frozen=True, slots=True)
class Plan:
    """Find out whether that start can be planned, before anything goes for it, and post `Planned`; or `Ended`, as of a
    start that failed, where it cannot."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Foretell:
    """Find out what the unit would take if it started now, and post it as `Measured`."""

    model: str


Command = Start | Stop | Sleep | Wake | Drain | Grant | Reject | WakeAt | Look | Lacks | Plan | Foretell
