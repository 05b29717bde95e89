"""The rules that hold after every step, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral.scheduler.state import INFINITY, Keep, Policy, Spec
from support.scheduler_world import World

NAMES = ["a", "b", "c", "d"]

footprints = st.dictionaries(st.sampled_from(["cpu", "gpu0"]), st.integers(0, 12), max_size=2)


def with_sleep(spec: Spec) -> Spec:
    return replace(spec, asleep={name: size // 3 for name, size in spec.footprint.items()}) if spec.sleeps else spec


specs = st.builds(
    Spec,
    name=st.just(""),
    slots=st.integers(1, 2),
    idle_timeout_s=st.sampled_from([None, 5.0, 60.0]),
    pin=st.sampled_from([False, False, False, True]),
    priority=st.integers(0, 2),
    exclusive=st.sampled_from([False, False, True]),
    group=st.sampled_from([None, None, "g"]),
    footprint=footprints,
    replicas=st.sampled_from([1, 1, 2]),
    sleeps=st.booleans(),
).map(with_sleep)
policies = st.builds(
    Policy,
    max_active=st.sampled_from([None, 1, 2]),
    budgets=st.sampled_from([{}, {"gpu0": 10}, {"cpu": 12, "gpu0": 8}]),
    headroom=st.sampled_from([0, 1, {"cpu": 2, "gpu0": 0}]),
    max_queue=st.integers(3, 30),
    max_wait_s=st.just(10.0),
    min_residency_s=st.sampled_from([0.0, 2.0]),
    drain_s=st.just(5.0),
    default_model=st.sampled_from([None, "a"]),
    return_s=st.sampled_from([None, 20.0]),
)
devices = st.sampled_from([{}, {"gpu0": 12}, {"cpu": 16, "gpu0": 12}])


class SchedulerRules(RuleBasedStateMachine):
    """Clients that come and leave, engines that load, fail, die and stop, programs that take memory."""

    world: World

    @initialize(
        made=st.lists(specs, min_size=4, max_size=4), policy=policies, total=devices, lag=st.sampled_from([0.0, 1.0])
    )
    def begin(self, made: list[Spec], policy: Policy, total: dict[str, int], lag: float) -> None:
        named = {name: replace(spec, name=name) for name, spec in zip(NAMES, made, strict=True)}
        self.world = World(named, policy, total, twins=True, lag_s=lag)

    def one(self, data: st.DataObject, phase: str) -> str:
        return data.draw(st.sampled_from(self.world.units(phase)))

    @rule(
        name=st.sampled_from(NAMES),
        patience=st.sampled_from([1.0, 30.0, 1e6]),
        lease=st.sampled_from([True, True, True, False]),
        key=st.sampled_from(["", "k", "l"]),
        keep_s=st.sampled_from([None, None, None, 0.0, 30.0, INFINITY]),
    )
    def ask(self, name: str, patience: float, lease: bool, key: str, keep_s: float | None) -> None:
        self.world.ask(name, patience, lease=lease, key=key, keep_s=keep_s)

    @precondition(lambda self: self.world.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(sorted(self.world.waiting))))

    @precondition(lambda self: self.world.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.world.give_back(data.draw(st.sampled_from(sorted(self.world.leases))))

    @precondition(lambda self: self.world.units("starting"))
    @rule(data=st.data(), works=st.sampled_from([True, True, True, False]))
    def start_ends(self, data: st.DataObject, works: bool) -> None:
        self.world.start_ends(self.one(data, "starting"), works=works)

    @precondition(lambda self: self.world.units("stopping"))
    @rule(data=st.data())
    def stop_ends(self, data: st.DataObject) -> None:
        self.world.gone(self.one(data, "stopping"))

    @precondition(lambda self: self.world.units("dozing"))
    @rule(data=st.data(), works=st.sampled_from([True, True, False]))
    def sleep_ends(self, data: st.DataObject, works: bool) -> None:
        unit = self.one(data, "dozing")
        self.world.slept(unit) if works else self.world.gone(unit)

    @precondition(lambda self: self.world.units("asleep"))
    @rule(data=st.data())
    def dies_asleep(self, data: st.DataObject) -> None:
        self.world.gone(self.one(data, "asleep"), retry_at=self.world.now + 1.0)

    @precondition(lambda self: self.world.units("ready"))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.world.gone(self.one(data, "ready"), retry_at=self.world.now + 1.0)

    @precondition(lambda self: self.world.units("ready"))
    @rule(data=st.data())
    def doubt(self, data: st.DataObject) -> None:
        self.world.doubt(self.one(data, "ready"))

    @precondition(lambda self: self.world.units("ready"))
    @rule(data=st.data())
    def pass_over(self, data: st.DataObject) -> None:
        self.world.pass_over(self.one(data, "ready"))

    @precondition(lambda self: self.world.planning)
    @rule(works=st.sampled_from([True, True, False]))
    def plan_ends(self, works: bool) -> None:
        self.world.plan_ends(works=works)

    @precondition(lambda self: self.world.looking)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def look_ends(self, fails: bool) -> None:
        self.world.look_ends(fails=fails)

    @precondition(lambda self: self.world.total)
    @rule(device=st.sampled_from(["cpu", "gpu0"]), taken=st.integers(0, 10))
    def others_take(self, device: str, taken: int) -> None:
        if device in self.world.total:
            self.world.others[device] = taken

    @rule(name=st.sampled_from(NAMES))
    def ask_to_stop(self, name: str) -> None:
        self.world.ask_to_stop(name)

    @rule(name=st.sampled_from(NAMES), footprint=footprints)
    def measure(self, name: str, footprint: dict[str, int]) -> None:
        self.world.measure(name, footprint)

    @rule(kept=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Keep), max_size=2))
    def schedule(self, kept: dict[str, Keep]) -> None:
        self.world.schedule(kept)

    @rule(data=st.data(), policy=policies)
    def reconfigure(self, data: st.DataObject, policy: Policy) -> None:
        changed = data.draw(st.sets(st.sampled_from(NAMES), max_size=2))
        made = dict(self.world.specs)
        for name in changed:
            made[name] = replace(data.draw(specs), name=name)
        self.world.reconfigure(made, policy)

    @rule(seconds=st.sampled_from([0.1, 2.0, 12.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


TestSchedulerRules = SchedulerRules.TestCase
TestSchedulerRules.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)


class MoreSchedulerRules(SchedulerRules):
    """The same, in many more worlds."""


TestMoreSchedulerRules = pytest.mark.timeout(900)(pytest.mark.lasts(35)(pytest.mark.long(MoreSchedulerRules.TestCase)))
TestMoreSchedulerRules.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
