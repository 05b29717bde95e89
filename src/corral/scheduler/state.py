"""What the scheduler knows: models, their units, memory, who waits, who holds a lease. Data only, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Literal

from corral.config.settings import HEADROOM, Window, budget_on, headroom_on
from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.scheduler.line import Line

INFINITY = float("inf")

Cause = Literal["idle", "room", "asked", "configuration", "ailing", "gpu"]
"""Why a unit is to end, in a word: nobody needed it, another needs its memory, somebody asked for that, it is
configured in another way or not at all, it said of itself that it is ill, a GPU that it lacked is back."""


class Phase(StrEnum):
    """A unit as far as scheduling cares."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    SLEEPING = "sleeping"  # its process is there, most of its memory is not


class Keep(StrEnum):
    """That a model is wanted although nobody asks for it."""

    READY = "ready"  # started when there is room, no idle stop; it gives way to requests for others
    PIN = "pin"  # the same, and it does not give way


@dataclass(frozen=True, slots=True)
class Spec:
    """One model's scheduling facts."""

    name: str
    slots: int = 1
    idle_timeout_s: float | None = 300.0
    pin: bool = False
    priority: int = 0
    exclusive: bool = False
    group: str | None = None
    footprint: Mapping[str, int] = field(default_factory=dict)  # bytes by device; empty = unknown
    mapped: int = 0  # of its bytes on "cpu": weights in a mapped file, which the system reads again when it must
    replicas: int = 1  # units of it at once, at most
    schedule: tuple[Window, ...] = ()
    sleeps: bool = False  # it is put to sleep instead of being stopped, where that frees enough
    asleep: Mapping[str, int] = field(default_factory=dict)  # bytes by device while it sleeps; empty = it cannot
    elsewhere: bool = False  # its server runs already: it takes no place, and to let it go frees none

    def takes(self, footprint: Mapping[str, int], mapped: int, asleep: Mapping[str, int]) -> bool:
        """Whether these are what is known of it."""
        return (self.footprint, self.mapped, self.asleep) == (footprint, mapped, asleep)

    @property
    def rests(self) -> bool:
        """Whether sleeping gives anything back."""
        kept = sum(self.asleep.values())
        return self.sleeps and bool(self.asleep) and kept < sum(self.footprint.values())

    @property
    def capacity(self) -> int:
        """Leases given out at once by one unit: the engine's slots and two more, so that it never waits for us between
        two requests, while the rest wait here, where they can be reordered, counted and cancelled. With replicas, the
        slots alone: what waits here takes the first that is free in any of them."""
        return self.slots + 2 if self.replicas == 1 else self.slots


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all models together."""

    max_active: int | None = None
    budgets: Mapping[str, int] = field(default_factory=dict)  # bytes by device; none = its memory less the headroom
    headroom: int | Mapping[str, int] = HEADROOM  # bytes left free on each device
    max_queue: int = 256
    max_wait_s: float = 10.0  # after which a resident model takes no new work while another waits for its place
    min_residency_s: float = 2.0  # how long a unit just loaded stays when it is contended; see `evict`
    drain_s: float = 30.0  # how long an asked stop waits for running answers
    default_model: str | None = None
    return_s: float | None = None  # after so long without a request the default model is started again

    def headroom_on(self, device: str) -> int:
        return headroom_on(self.headroom, device)

    def budget_on(self, device: str, total: int | None) -> int | None:
        return budget_on(self.budgets, self.headroom, device, total)


@dataclass(slots=True)
class Place:
    """One unit, its leases, and the line of those who wait for its model. Replicas share their line."""

    spec: Spec
    name: str = ""  # the model's, or `<model>~2` …
    line: Line = field(default_factory=Line)
    phase: Phase = Phase.ABSENT
    generation: int = 0  # of the newest start
    leases: dict[int, float] = field(default_factory=dict)  # waiter id → granted at
    started_at: float = 0.0
    ready_at: float = 0.0
    ended_at: float = -INFINITY  # after it had been ready
    idle_since: float = 0.0  # meaningful while READY without leases
    load_s: float = 0.0  # of the newest start
    usual_load_s: float = 0.0  # a moving average over starts; 0 = it never started
    swap_s: float = 0.0  # the stops that the newest start had to wait for
    wanted_at: float | None = None  # when its start was first held up by what had to be stopped
    retry_at: float = 0.0  # not started before
    error: CorralError | None = None  # why, while now < retry_at
    stop_by: float | None = None  # draining: stopped at the latest then (inf = whenever the last lease ends)
    stop_why: str = ""
    stop_cause: Cause = "asked"
    mean_hold_s: float = 0.5  # a moving average of how long a lease is held
    paused_until: float = 0.0  # no grants before: a connection broke, or it passes a request over
    removed: bool = False  # no longer configured; forgotten once absent
    measured: bool = False  # its footprint is what a load of it was seen to take
    short: Mapping[str, int] = field(default_factory=dict)  # memory that others hold and it lacks, by device
    short_why: str = ""  # the same in words
    lacks: str = ""  # what its next start was said to wait for
    lacked: str = ""  # the same of its newest start
    planning: bool = False  # whether its next start can be planned is being found out; it is not started meanwhile
    sound: bool = False  # it can
    foretold_at: float = -INFINITY  # when it was last asked what it would take
    keep_s: float | None = None  # what requests said of its idle timeout; inf = pinned; None = as configured
    kept: Keep | None = None  # by its schedule, now
    dismissed: bool = False  # somebody stopped it: it does not come back by itself before it is asked for
    dozing: bool = False  # while STOPPING: it goes to sleep
    waking: bool = False  # while STARTING: it wakes up

    def __post_init__(self) -> None:
        self.name = self.name or self.spec.name

    @property
    def model(self) -> str:
        return self.spec.name

    @property
    def first(self) -> bool:
        """Whether it is the model's first unit, the one that waiting requests make room for."""
        return self.name == self.spec.name

    @property
    def draining(self) -> bool:
        return self.stop_by is not None

    @property
    def resident(self) -> bool:
        return self.phase is not Phase.ABSENT

    @property
    def away(self) -> bool:
        """Whether it serves nobody before something was done for that: started, or woken."""
        return self.phase is Phase.ABSENT or self.phase is Phase.SLEEPING

    @property
    def holds(self) -> Mapping[str, int]:
        """What it counts for on each device, being there."""
        return self.spec.asleep if self.phase is Phase.SLEEPING else self.spec.footprint

    @property
    def pinned(self) -> bool:
        """Whether it is never stopped to make room."""
        return self.spec.pin or self.kept is Keep.PIN or self.keep_s == INFINITY

    @property
    def rest_s(self) -> float:
        """How long it may be idle; infinite where it never stops for that."""
        if self.spec.pin or self.kept is not None:
            return INFINITY
        if self.keep_s is not None:
            return self.keep_s
        return INFINITY if self.spec.idle_timeout_s is None else self.spec.idle_timeout_s


@dataclass(frozen=True, slots=True)
class Waiter:
    """One request that has not been answered yet."""

    id: int
    model: str
    asked_at: float
    deadline: float
    lease: bool = True  # False: wants the unit ready, holds nothing (`corral start`, preload)
    key: str = ""  # who asks; "" = nobody in particular
    keep_s: float | None = None
    position: int = 0  # in the line, when it began to wait


@dataclass(slots=True)
class Seen:
    """The newest reading of the devices' memory, and when the next one is due."""

    free: Mapping[str, int] = field(default_factory=dict)
    total: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by unit, where processes could be asked
    at: float = -INFINITY
    looking: bool = False  # one is being made
    pause_s: float = 0.0  # the last one did not find what should be free: so long until the next
    freed_at: dict[str, float] = field(default_factory=dict)  # when a unit on that device ended, last


@dataclass(slots=True)
class Scheduling:
    """Everything `decide.step` reads and changes. One writer: the scheduler's loop."""

    policy: Policy
    places: dict[str, Place] = field(default_factory=dict)
    waiters: dict[int, Waiter] = field(default_factory=dict)  # in order of arrival
    closing: bool = False
    seen: Seen = field(default_factory=Seen)
    looks: bool = False  # whether the memory can be looked at; a start is not judged by it else
    plans: bool = False  # whether starts can be planned ahead; others make room for one untried else
    next_deadline: float = INFINITY  # no waiter's deadline is earlier
    busy_at: float = 0.0  # when something was last asked for without a lease of its own, for the return to the default

    def units_of(self, place: Place) -> list[Place]:
        """`place` and its fellows of the same model."""
        if place.spec.replicas == 1 and place.first and f"{place.name}~2" not in self.places:
            return [place]
        return [each for each in self.places.values() if each.line is place.line]

    def held_by(self, waiter: int) -> str | None:
        """The unit on which `waiter` has a lease."""
        return next((name for name, place in self.places.items() if waiter in place.leases), None)

    def waiting_models(self) -> dict[str, float]:
        """Models that somebody waits for, and since when each waits for its turn: since its oldest waiter came, or it
        had its last turn."""
        found: dict[str, float] = {}
        for place in self.places.values():
            if place.line and place.first:
                turn_at = max(unit.ended_at for unit in self.units_of(place))
                found[place.model] = max(turn_at, min(self.waiters[each].asked_at for each in place.line.heads))
        return found

    def validate(self) -> None:
        """Raises AssertionError when the books do not balance; for tests, after each step."""
        lines = {id(place.line): place.line for place in self.places.values()}
        queued = [waiter for line in lines.values() for waiter in line]
        assert sorted(queued) == sorted(self.waiters), "every waiter stands in exactly one queue"
        for name, place in self.places.items():
            assert name == place.name
            assert all(place.line.queues.values()), "no key without waiters"
            for waiter in place.line:
                assert self.waiters[waiter].model == place.model
            assert not place.leases or place.phase in (Phase.READY, Phase.STOPPING), "no lease on a unit not ready"
            assert place.draining or len(place.leases) <= place.spec.slots + 2
        assert len(self.waiters) <= self.policy.max_queue
        assert all(waiter.deadline >= self.next_deadline for waiter in self.waiters.values())
