"""The rules that hold after every step, whatever happens in whatever order."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral.errors import StartFailed
from corral.scheduler.decide import step
from corral.scheduler.evict import conflict, fits
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
    Reject,
    Returned,
    Start,
    Stop,
    StopAsked,
    Ticked,
    WakeAt,
)
from corral.scheduler.state import Phase, Place, Policy, Scheduling, Spec

NAMES = ["a", "b", "c", "d"]

specs = st.builds(
    Spec,
    name=st.just(""),
    slots=st.integers(1, 2),
    idle_timeout_s=st.sampled_from([None, 5.0, 60.0]),
    pin=st.sampled_from([False, False, False, True]),
    priority=st.integers(0, 2),
    exclusive=st.sampled_from([False, False, True]),
    group=st.sampled_from([None, None, "g"]),
    footprint=st.dictionaries(st.sampled_from(["cpu", "gpu0"]), st.integers(0, 12), max_size=2),
)
policies = st.builds(
    Policy,
    max_active=st.sampled_from([None, 1, 2]),
    budgets=st.sampled_from([{}, {"gpu0": 10}, {"cpu": 12, "gpu0": 8}]),
    max_queue=st.integers(3, 30),
    max_wait_s=st.just(10.0),
    drain_s=st.just(5.0),
)


class SchedulerRules(RuleBasedStateMachine):
    """A random world around `step`: clients that come and leave, engines that load, fail, die and stop."""

    @initialize(made=st.lists(specs, min_size=4, max_size=4), policy=policies)
    def begin(self, made: list[Spec], policy: Policy) -> None:
        self.now = 100.0
        self.specs = {name: _named(spec, name) for name, spec in zip(NAMES, made, strict=True)}
        self.state = Scheduling(policy, {name: Place(spec) for name, spec in self.specs.items()})
        self.waiter = 0
        self.waiting: dict[int, str] = {}
        self.leases: dict[int, tuple[str, int]] = {}
        self.starting: dict[str, int] = {}
        self.stopping: dict[str, int] = {}
        self.ready: dict[str, int] = {}
        self.draining: set[str] = set()
        self.stop_asked: set[str] = set()
        self.answered: set[int] = set()
        self.wake = float("inf")

    def post(self, event: Event) -> None:
        twin = copy.deepcopy(self.state)
        commands = step(self.state, event, self.now)
        assert commands == step(twin, event, self.now) or _errors(commands), "step is deterministic"
        for command in commands:
            self.carry_out(command)

    def carry_out(self, command: Command) -> None:
        match command:
            case Grant(waiter, model, generation):
                assert waiter not in self.answered, "a waiter is answered once"
                assert self.ready.get(model) == generation, "no lease on a unit that is not ready"
                self.answered.add(waiter)
                self.waiting.pop(waiter, None)
                if waiter % 5:  # see `ask`: every fifth wants no lease
                    assert model not in self.draining, "a draining unit takes no new work"
                    self.leases[waiter] = (model, generation)
            case Reject(waiter, error):
                assert waiter not in self.answered, "a waiter is answered once"
                assert error.message and error.code
                self.answered.add(waiter)
                self.waiting.pop(waiter, None)
            case Start(model, generation):
                assert model not in self.starting and model not in self.ready and model not in self.stopping
                self.starting[model] = generation
            case Stop(model, generation, why):
                asked = model in self.stop_asked
                busy = [each for each, gen in self.leases.values() if each == model]
                assert asked or not busy, f"a busy unit is never stopped unasked ({why})"
                assert asked or not self.specs[model].pin or "configur" in why, "a pinned unit is never stopped unasked"
                self.ready.pop(model, None)
                self.starting.pop(model, None)
                self.draining.discard(model)
                self.stopping[model] = generation
            case Drain(model):
                self.draining.add(model)
            case WakeAt(at):
                self.wake = min(self.wake, at)

    @rule(name=st.sampled_from(NAMES), patience=st.sampled_from([1.0, 30.0, 1000.0]))
    def ask(self, name: str, patience: float) -> None:
        self.waiter += 1
        self.waiting[self.waiter] = name
        self.post(Asked(self.waiter, name, self.now + patience, lease=bool(self.waiter % 5)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[waiter]
        self.answered.add(waiter)
        self.post(Left(waiter))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.leases)))
        model, _ = self.leases.pop(waiter)
        self.post(Returned(waiter, model))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), works=st.sampled_from([True, True, True, False]))
    def start_ends(self, data: st.DataObject, works: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.starting)))
        generation = self.starting.pop(model)
        if works:
            self.ready[model] = generation
            self.post(BecameReady(model, generation))
        else:
            self.post(Ended(model, generation, StartFailed("no"), self.now + 3.0))

    @precondition(lambda self: self.stopping)
    @rule(data=st.data())
    def stop_ends(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.stopping)))
        self.lost(model, self.stopping.pop(model), 0.0)

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.ready)))
        self.lost(model, self.ready.pop(model), self.now + 1.0)

    def lost(self, model: str, generation: int, retry_at: float) -> None:
        self.draining.discard(model)
        self.stop_asked.discard(model)
        self.leases = {w: lease for w, lease in self.leases.items() if lease[0] != model}
        self.post(Ended(model, generation, None, retry_at))

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def doubt(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.ready)))
        self.post(Doubted(model, self.ready[model]))

    @rule(name=st.sampled_from(NAMES))
    def ask_to_stop(self, name: str) -> None:
        if name in self.ready or name in self.starting:
            self.stop_asked.add(name)
        self.post(StopAsked(name, "asked"))

    @rule(data=st.data(), policy=policies)
    def reconfigure(self, data: st.DataObject, policy: Policy) -> None:
        changed = data.draw(st.sets(st.sampled_from(NAMES), max_size=2))
        for name in changed:
            self.specs[name] = _named(data.draw(specs), name)
        # Only units that are told to go may stand beyond the new policy, so everything resident is outdated.
        everything = frozenset(NAMES)
        self.stop_asked |= set(self.starting)
        self.post(Configured(dict(self.specs), policy, everything))

    @rule(seconds=st.sampled_from([0.1, 2.0, 12.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wake <= until:
            self.now, self.wake = max(self.now, self.wake), float("inf")
            self.post(Ticked())
        self.now = until

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "state"):
            return
        self.state.validate()
        assert set(self.state.waiters) == set(self.waiting), "nobody is forgotten"

    @invariant()
    def within_bounds(self) -> None:
        """Never over any budget or count, never two that exclude each other, among units nobody told to go."""
        if not hasattr(self, "state"):
            return
        standing = [p for p in self.state.places.values() if p.resident]
        if any(place.draining or place.phase is Phase.STOPPING for place in standing):
            return  # leftovers of an earlier configuration are on their way out
        present = [place.spec for place in standing]
        assert fits(self.state.policy, present)
        for one in present:
            assert not any(conflict(one, other) for other in present if other is not one)

    def teardown(self) -> None:
        """Left alone, with engines that work and clients that finish, every waiter is answered."""
        if not hasattr(self, "state"):
            return
        for _ in range(400):
            if not self.waiting:
                break
            if self.starting:
                model = sorted(self.starting)[0]
                self.ready[model] = self.starting.pop(model)
                self.post(BecameReady(model, self.ready[model]))
            elif self.stopping:
                model = sorted(self.stopping)[0]
                self.lost(model, self.stopping.pop(model), 0.0)
            elif self.leases:
                waiter = sorted(self.leases)[0]
                self.post(Returned(waiter, self.leases.pop(waiter)[0]))
            else:
                assert self.wake < float("inf"), f"waits for ever: {self.state}"
                self.now, self.wake = max(self.now, self.wake), float("inf")
                self.post(Ticked())
        assert not self.waiting, f"unanswered: {self.waiting} in {self.state}"


def _named(spec: Spec, name: str) -> Spec:
    values: dict[str, Any] = {field: getattr(spec, field) for field in Spec.__dataclass_fields__}
    return Spec(**{**values, "name": name})


def _errors(commands: list[Command]) -> bool:
    """Exceptions compare by identity, so commands that carry one are compared by their kind alone."""
    return any(isinstance(command, Reject) for command in commands)


TestSchedulerRules = SchedulerRules.TestCase
TestSchedulerRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
