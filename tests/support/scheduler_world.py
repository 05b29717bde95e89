"""A world around `decide.step`: clients, engines, devices with memory that others use too. Whatever is done in it, the
rules that must hold always are checked at each command."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from corral.errors import StartFailed
from corral.scheduler.apply import units
from corral.scheduler.decide import grant_now, step
from corral.scheduler.evict import conflict
from corral.scheduler.messages import (
    Asked,
    BecameReady,
    Command,
    Configured,
    Doubted,
    Drain,
    Ended,
    Event,
    Grant,
    Left,
    Look,
    Measured,
    MemorySeen,
    Paused,
    Plan,
    Planned,
    Reject,
    Returned,
    Scheduled,
    Sleep,
    Slept,
    Start,
    Stop,
    StopAsked,
    Ticked,
    Wake,
    WakeAt,
)
from corral.scheduler.state import INFINITY, Keep, Phase, Policy, Scheduling, Spec


@dataclass
class Engine:
    """A unit's process as the world has it."""

    generation: int
    phase: str  # starting, ready, stopping, dozing, asleep
    began_at: float
    ready_at: float = INFINITY
    waking: bool = False


@dataclass
class World:
    """Every method is something that may happen; each leads to at least one step."""

    specs: dict[str, Spec]
    policy: Policy
    total: Mapping[str, int] = field(default_factory=dict)  # memory by device; empty = nobody looks
    twins: bool = False  # hold each step against one of a copy
    now: float = 100.0
    lag_s: float = 0.0  # how long memory takes to come back after an end
    plans: bool = True  # starts are planned before others go for them

    def __post_init__(self) -> None:
        self.state = Scheduling(self.policy, looks=bool(self.total), plans=self.plans, busy_at=self.now)
        self.engines: dict[str, Engine] = {}
        self.planning: list[tuple[str, int]] = []  # starts that are being planned
        self.planned: set[tuple[str, int]] = set()
        self.waiting: dict[int, str] = {}
        self.asked_at: dict[int, float] = {}
        self.leases: dict[int, str] = {}  # waiter → unit
        self.wants_lease: dict[int, bool] = {}
        self.keeps: dict[int, float | None] = {}
        self.keep_of: dict[str, float] = {}  # unit → what requests said
        self.kept: dict[str, Keep] = {}
        self.draining: set[str] = set()
        self.going: set[str] = set()  # units that somebody told to go
        self.paused: set[str] = set()  # units that pass somebody over, until all that they have is done
        self.answered: set[int] = set()
        self.refused: dict[int, str] = {}
        self.waits: dict[int, float] = {}
        self.wake = INFINITY
        self.looking = False
        self.others = dict.fromkeys(self.total, 0)
        self.ghosts: list[tuple[str, Mapping[str, int], float]] = []
        self.read: dict[str, int] = {}
        self.read_at = -INFINITY
        self.starts = 0
        self._last = 0
        self.post(Configured(dict(self.specs), self.policy))

    # What happens.

    def ask(
        self, model: str, patience: float, *, lease: bool = True, key: str = "", keep_s: float | None = None
    ) -> int:
        self._last = waiter = self._last + 1
        self.waiting[waiter], self.asked_at[waiter], self.wants_lease[waiter] = model, self.now, lease
        self.keeps[waiter] = keep_s
        twin = copy.deepcopy(self.state) if self.twins and lease else None
        self.post(Asked(waiter, model, self.now + patience, lease, key=key, keep_s=keep_s))
        if twin is not None:
            before = repr(twin)
            granted = grant_now(twin, waiter, model, self.now, keep_s)
            assert repr(twin) == (before if granted is None else repr(self.state)), "the short way is the same way"
            assert granted is None or self.leases[waiter] == granted.name
        return waiter

    def leave(self, waiter: int) -> None:
        del self.waiting[waiter]
        self.answered.add(waiter)
        self.post(Left(waiter))

    def give_back(self, waiter: int) -> None:
        unit = self.leases.pop(waiter)
        self.post(Returned(waiter, unit))
        if unit in self.paused and unit not in self.leases.values():
            self.paused.discard(unit)
            self.post(Paused(unit, self.engines[unit].generation, False))

    def plan_ends(self, *, works: bool = True) -> None:
        unit, generation = self.planning.pop(0)
        if works:
            self.planned.add((unit, generation))
            self.post(Planned(unit, generation))
        else:
            self.post(Ended(unit, generation, StartFailed("no such file"), self.now + 3.0))

    def start_ends(self, unit: str, *, works: bool = True) -> None:
        engine = self.engines[unit]
        if works:
            engine.phase, engine.ready_at, engine.waking = "ready", self.now, False
            self.post(BecameReady(unit, engine.generation))
        else:
            self.gone(unit, StartFailed("no"), self.now + 3.0)

    def gone(self, unit: str, error: StartFailed | None = None, retry_at: float = 0.0) -> None:
        """A process ends, asked or not; what it held comes back a little later."""
        engine = self.engines.pop(unit)
        self.ghosts.append((unit, self.held(unit, engine), self.now + self.lag_s))
        self.draining.discard(unit)
        self.going.discard(unit)
        self.paused.discard(unit)
        self.keep_of.pop(unit, None)
        self.leases = {waiter: held for waiter, held in self.leases.items() if held != unit}
        self.post(Ended(unit, engine.generation, error, retry_at))

    def slept(self, unit: str) -> None:
        """It has gone to sleep; what it gave back is there a little later."""
        engine, spec = self.engines[unit], self.state.places[unit].spec
        given = {name: size - spec.asleep.get(name, 0) for name, size in spec.footprint.items()}
        self.ghosts.append((unit, given, self.now + self.lag_s))
        engine.phase = "asleep"
        self.post(Slept(unit, engine.generation))

    def held(self, unit: str, engine: Engine) -> Mapping[str, int]:
        """What counts as its own."""
        spec = self.state.places[unit].spec
        return spec.asleep if engine.phase == "asleep" else spec.footprint

    def doubt(self, unit: str) -> None:
        self.post(Doubted(unit, self.engines[unit].generation))

    def pass_over(self, unit: str) -> None:
        """It leaves one of its requests alone while it answers those that came later."""
        if unit in self.leases.values():
            self.paused.add(unit)
            self.post(Paused(unit, self.engines[unit].generation, True))

    def ask_to_stop(self, model: str) -> None:
        self.going |= {unit for unit in self.engines if _model(unit) == model}
        self.post(StopAsked(model, "asked"))

    def reconfigure(self, specs: dict[str, Spec], policy: Policy) -> None:
        """Everything resident is outdated: only what is told to go may stand beyond the new policy."""
        self.specs, self.policy = specs, policy
        self.going |= set(self.engines)
        self.post(Configured(dict(specs), policy, frozenset(specs)))

    def measure(self, model: str, footprint: Mapping[str, int]) -> None:
        asleep = {name: size // 3 for name, size in footprint.items()}
        self.specs[model] = replace(self.specs[model], footprint=footprint, asleep=asleep)
        self.post(Measured(model, footprint, asleep=asleep))

    def schedule(self, kept: dict[str, Keep]) -> None:
        self.kept = kept
        self.post(Scheduled(kept))

    def look_ends(self, *, fails: bool = False) -> None:
        self.looking = False
        self.read, self.read_at = ({}, self.now) if fails else (self.free(), self.now)
        self.post(MemorySeen(self.read, {} if fails else self.total, self.now))

    def tick(self) -> None:
        self.post(Ticked())

    def pass_time(self, seconds: float) -> None:
        """Wakes are kept; looks end at once."""
        until = self.now + seconds
        while self.planning:
            self.plan_ends()
        if self.looking:
            self.look_ends()
        while self.wake <= until:
            self.now, self.wake = max(self.now, self.wake), INFINITY
            self.tick()
            if self.looking:
                self.look_ends()
        self.now = until

    def free(self) -> dict[str, int]:
        """What is really free: less than the books say while ends are fresh, more while engines still load."""
        found = {device: total - self.others[device] for device, total in self.total.items()}
        held = [self.held(unit, engine) for unit, engine in self.engines.items() if engine.phase != "starting"]
        held += [self.state.places[unit].spec.asleep for unit, engine in self.engines.items() if engine.waking]
        for footprint in held + [ghost[1] for ghost in self.ghosts if ghost[2] > self.now]:
            for device in found:
                found[device] -= footprint.get(device, 0)
        return {device: max(0, free) for device, free in found.items()}

    # What follows.

    def post(self, event: Event) -> None:
        twin = copy.deepcopy(self.state) if self.twins else None
        commands = step(self.state, event, self.now)
        if twin is not None:
            again = step(twin, event, self.now)
            assert commands == again or any(isinstance(each, Reject) for each in commands), "step is deterministic"
        for command in commands:
            self.obey(command)

    def obey(self, command: Command) -> None:
        match command:
            case Grant(waiter, unit, generation):
                assert waiter in self.waiting and waiter not in self.answered, "a waiter is answered once"
                engine = self.engines.get(unit)
                assert engine is not None and engine.phase == "ready", "no lease on a unit that is not ready"
                assert engine.generation == generation and _model(unit) == self.waiting[waiter]
                self._answer(waiter)
                assert unit not in self.paused, "a unit that passes somebody over takes no new work"
                if self.wants_lease[waiter]:
                    assert unit not in self.draining, "a draining unit takes no new work"
                    self.leases[waiter] = unit
                if (keep_s := self.keeps[waiter]) is not None:
                    self.keep_of[unit] = keep_s
            case Reject(waiter, error):
                assert waiter not in self.answered, "a waiter is answered once"
                assert error.message and error.code
                self.refused[waiter] = error.code
                self._answer(waiter)
            case Start(unit, generation):
                self._start(unit, generation)
            case Stop(unit, generation, why):
                self._stop(unit, generation, why)
            case Sleep(unit, generation, why):
                assert unit not in self.leases.values() and self.state.places[unit].spec.sleeps
                self._stop(unit, generation, why)
                self.engines[unit].phase = "dozing"
            case Wake(unit, generation):
                engine = self.engines.pop(unit)
                assert engine.phase == "asleep" and engine.generation == generation, "only who sleeps is woken"
                self._start(unit, generation, self.state.places[unit].spec.asleep)
                self.engines[unit].waking = True
            case Drain(unit):
                self.draining.add(unit)
            case Plan(unit, generation):
                assert self.plans and unit not in self.engines
                self.planning.append((unit, generation))
            case Look():
                assert not self.looking, "one look at a time"
                self.looking = True
            case WakeAt(at):
                self.wake = min(self.wake, at)

    def _answer(self, waiter: int) -> None:
        self.answered.add(waiter)
        self.waiting.pop(waiter, None)
        self.waits[waiter] = self.now - self.asked_at[waiter]

    def _start(self, unit: str, generation: int, held: Mapping[str, int] | None = None) -> None:
        assert unit not in self.engines
        self.starts += 1
        spec = self.state.places[unit].spec
        beside = {name: self.state.places[name].spec for name in self.engines}
        for name, other in beside.items():
            assert _model(name) == spec.name or not conflict(spec, other), "never two that exclude each other"
        if self.policy.max_active is not None:
            awake = [name for name in beside if self.engines[name].phase != "asleep"]
            assert len(awake) + 1 <= self.policy.max_active, "never more than max_active"
        for device, wanted in spec.footprint.items():
            if wanted <= 0:
                continue
            taken = wanted + sum(self.held(name, engine).get(device, 0) for name, engine in self.engines.items())
            assert taken <= self.policy.budgets.get(device, INFINITY), "never over a budget"
            if device in self.read:
                assert taken <= self.total[device] - self.policy.headroom_on(device), "never over what there is"
                self._really_free(unit, device, wanted - (held or {}).get(device, 0), beside)
        self.engines[unit] = Engine(generation, "starting", self.now)

    def _really_free(self, unit: str, device: str, wanted: int, beside: dict[str, Spec]) -> None:
        if not self.total or wanted <= 0:
            return
        assert self.now - self.read_at <= 3.0, "the reading is fresh"
        unseen = [
            spec.footprint.get(device, 0)
            for name, spec in beside.items()
            if self.engines[name].phase == "starting"
            or (self.engines[name].phase == "ready" and self.engines[name].ready_at > self.read_at)
        ]
        left = self.read[device] - self.policy.headroom_on(device) - sum(unseen)
        assert wanted <= left, f"never over the measured memory: {unit} on {device}"

    def _stop(self, unit: str, generation: int, why: str) -> None:
        engine = self.engines[unit]
        assert engine.generation == generation and engine.phase not in ("stopping", "dozing")
        asked = unit in self.going
        if self.plans and why.startswith("making room for "):
            self._is_planned(why.removeprefix("making room for "))
        assert asked or unit not in self.leases.values(), f"a busy unit is never stopped unasked ({why})"
        assert asked or engine.phase in ("ready", "asleep"), f"a load is never cut unasked ({why})"
        pinned = self.specs[_model(unit)].pin if _model(unit) in self.specs else False
        pinned = pinned or self.kept.get(unit) is Keep.PIN or self.keep_of.get(unit) == INFINITY
        assert asked or not pinned, f"a pinned unit is never stopped unasked ({why})"
        engine.phase = "stopping"
        self.draining.discard(unit)

    def _is_planned(self, unit: str) -> None:
        place = self.state.places[unit]
        sleeps = place.phase is Phase.SLEEPING
        assert sleeps or (unit, place.generation + 1) in self.planned, "nobody goes for a start that may have no plan"

    def units(self, phase: str) -> list[str]:
        return sorted(unit for unit, engine in self.engines.items() if engine.phase == phase)

    def check(self) -> None:
        self.state.validate()
        assert set(self.state.waiters) == set(self.waiting), "nobody is forgotten"
        held = {waiter: place.name for place in self.state.places.values() for waiter in place.leases}
        assert held == self.leases, "no lease is lost"
        resident = {name for name, place in self.state.places.items() if place.phase is not Phase.ABSENT}
        assert resident == set(self.engines)
        assert set(units(self.specs)) <= set(self.state.places)

    def settle(self) -> None:
        """Left alone, with engines that work, clients that finish and others that take nothing more, everybody who
        waits is answered."""
        self.others = dict.fromkeys(self.others, 0)
        began = self.now
        for _ in range(2000):
            assert self.now - began < 1000.0, f"takes for ever: {self.state}"
            if not self.waiting:
                return
            if self.planning:
                self.plan_ends()
            elif self.looking:
                self.look_ends()
            elif starting := self.units("starting"):
                self.start_ends(starting[0])
            elif stopping := self.units("stopping"):
                self.gone(stopping[0])
            elif dozing := self.units("dozing"):
                self.slept(dozing[0])
            elif self.leases:
                self.give_back(min(self.leases))
            else:
                assert self.wake < INFINITY, f"waits for ever: {self.state}"
                self.now, self.wake = max(self.now, self.wake), INFINITY
                self.tick()
        raise AssertionError(f"unanswered: {self.waiting} in {self.state}")


def _model(unit: str) -> str:
    return unit.partition("~")[0]
