"""What the scheduler knows: models, their units, who waits, who holds a lease. Data only, no decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from corral.errors import CorralError


class Phase(StrEnum):
    """A unit as far as scheduling cares."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


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

    @property
    def capacity(self) -> int:
        """Leases given out at once: the engine's slots and two more, so that it never waits for us between two
        requests, while the rest wait here, where they can be reordered, counted and cancelled."""
        return self.slots + 2


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all models together."""

    max_active: int | None = None
    budgets: Mapping[str, int] = field(default_factory=dict)  # bytes by device
    max_queue: int = 256
    max_wait_s: float = 10.0  # after which a resident model takes no new work while another waits for its place
    drain_s: float = 30.0  # how long an asked stop waits for running answers


@dataclass(slots=True)
class Place:
    """One model's unit, its leases and its waiting requests."""

    spec: Spec
    phase: Phase = Phase.ABSENT
    generation: int = 0  # of the newest start
    leases: dict[int, float] = field(default_factory=dict)  # waiter id → granted at
    waiting: deque[int] = field(default_factory=deque)  # waiter ids, oldest first
    started_at: float = 0.0
    idle_since: float = 0.0  # meaningful while READY without leases
    load_s: float = 0.0  # of the newest start
    swap_s: float = 0.0  # the stops that the newest start had to wait for
    wanted_at: float | None = None  # when its start was first held up by what had to be stopped
    retry_at: float = 0.0  # not started before
    error: CorralError | None = None  # why, while now < retry_at
    stop_by: float | None = None  # draining: stopped at the latest then (inf = whenever the last lease ends)
    stop_why: str = ""
    mean_hold_s: float = 0.5  # a moving average of how long a lease is held
    doubted_until: float = 0.0  # a connection broke: no grants until its end is known or this time has passed
    removed: bool = False  # no longer configured; forgotten once absent

    @property
    def draining(self) -> bool:
        return self.stop_by is not None

    @property
    def resident(self) -> bool:
        return self.phase is not Phase.ABSENT


@dataclass(frozen=True, slots=True)
class Waiter:
    """One request that has not been answered yet."""

    id: int
    model: str
    asked_at: float
    deadline: float
    lease: bool = True  # False: wants the unit ready, holds nothing (`corral start`, preload)


@dataclass(slots=True)
class Scheduling:
    """Everything `decide.step` reads and changes. One writer: the scheduler's loop."""

    policy: Policy
    places: dict[str, Place] = field(default_factory=dict)
    waiters: dict[int, Waiter] = field(default_factory=dict)  # in order of arrival
    closing: bool = False

    def validate(self) -> None:
        """Raises AssertionError when the books do not balance; for tests, after each step."""
        queued = [waiter for place in self.places.values() for waiter in place.waiting]
        assert sorted(queued) == sorted(self.waiters), "every waiter stands in exactly one queue"
        for name, place in self.places.items():
            assert name == place.spec.name
            for waiter in place.waiting:
                assert self.waiters[waiter].model == name
            assert not place.leases or place.phase in (Phase.READY, Phase.STOPPING), "no lease on a unit not ready"
            assert len(place.leases) <= place.spec.capacity
        assert len(self.waiters) <= self.policy.max_queue
