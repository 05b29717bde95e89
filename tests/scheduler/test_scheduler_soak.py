"""Long random lives of the scheduler, seeded, and how long anybody waits in them."""

from __future__ import annotations

import random

import pytest

from corral.scheduler.state import INFINITY, Keep, Policy, Spec
from support.scheduler_world import World

MODELS = [f"m{number}" for number in range(8)]
DEVICES = {"gpu0": 24, "gpu1": 24, "cpu": 40}


def random_spec(chance: random.Random, name: str) -> Spec:
    footprint = {device: chance.randint(0, 14) for device in chance.sample(sorted(DEVICES), chance.randint(0, 2))}
    return Spec(
        name,
        slots=chance.randint(1, 2),
        idle_timeout_s=chance.choice([None, 5.0, 60.0]),
        pin=chance.random() < 0.08,
        priority=chance.choice([0, 0, 0, 1, 2]),
        exclusive=chance.random() < 0.08,
        group=chance.choice([None, None, None, "g"]),
        footprint=footprint,
        replicas=chance.choice([1, 1, 1, 2, 3]),
    )


def random_policy(chance: random.Random) -> Policy:
    headrooms: list[int | dict[str, int]] = [0, 1, {"gpu0": 2, "gpu1": 0, "cpu": 4}]
    return Policy(
        max_active=chance.choice([None, None, 2, 4]),
        budgets=chance.choice([{}, {"gpu0": 20}, {"gpu0": 16, "gpu1": 20, "cpu": 30}]),
        headroom=chance.choice(headrooms),
        max_queue=chance.choice([8, 64]),
        min_residency_s=chance.choice([0.0, 2.0]),
        drain_s=5.0,
        default_model=chance.choice([None, "m0"]),
        return_s=chance.choice([None, 30.0]),
    )


def happen(world: World, chance: random.Random) -> None:
    """One thing of all that may happen."""
    dice = chance.random()
    if world.looking and chance.random() < 0.6:
        world.look_ends(fails=chance.random() < 0.05)
    elif world.planning and chance.random() < 0.6:
        world.plan_ends(works=chance.random() < 0.9)
    elif dice < 0.36:
        keep_s = chance.choice([None] * 8 + [0.0, 20.0, INFINITY])
        patience, key = chance.choice([1.0, 40.0, 1e6]), chance.choice(["", "k", "l", "hog", "hog"])
        world.ask(chance.choice(MODELS), patience, lease=chance.random() < 0.9, key=key, keep_s=keep_s)
    elif dice < 0.60 and world.leases:
        world.give_back(chance.choice(sorted(world.leases)))
    elif dice < 0.72 and (units := world.units("starting")):
        world.start_ends(chance.choice(units), works=chance.random() < 0.9)
    elif dice < 0.84 and (units := world.units("stopping")):
        world.gone(chance.choice(units))
    elif dice < 0.86 and (units := world.units("ready")):
        world.gone(chance.choice(units), retry_at=world.now + 1.0)
    elif dice < 0.87 and (units := world.units("ready")):
        world.doubt(chance.choice(units)) if chance.random() < 0.6 else world.pass_over(chance.choice(units))
    elif dice < 0.89 and world.waiting:
        world.leave(chance.choice(sorted(world.waiting)))
    elif dice < 0.90:
        world.ask_to_stop(chance.choice(MODELS))
    elif dice < 0.91 and world.total:
        world.others[chance.choice(sorted(DEVICES))] = chance.randint(0, 12)
    elif dice < 0.915:
        world.measure(chance.choice(MODELS), {chance.choice(sorted(DEVICES)): chance.randint(1, 14)})
    elif dice < 0.92:
        world.schedule({chance.choice(MODELS): chance.choice(list(Keep)) for _ in range(chance.randint(0, 2))})
    elif dice < 0.922:
        world.reconfigure({name: random_spec(chance, name) for name in MODELS}, random_policy(chance))
    else:
        world.pass_time(chance.choice([0.01, 0.1, 1.0, 8.0]))


@pytest.mark.parametrize("events", [4_000, pytest.param(25_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", range(4))
def test_a_long_random_life_keeps_every_rule(seed: int, events: int) -> None:
    """In each of four lives, of 100,000 random events together in the long form, no rule is broken, and in the end
    everybody was answered once."""
    chance = random.Random(seed)
    total = DEVICES if seed % 2 == 0 else {}
    world = World({name: random_spec(chance, name) for name in MODELS}, random_policy(chance), total, lag_s=0.3)
    for number in range(events):
        happen(world, chance)
        if number % 50 == 0:
            world.check()
    world.settle()
    world.check()
    assert world.starts > events // 50
    assert len(world.waits) + len(world.answered - set(world.waits)) == len(world.asked_at)


@pytest.mark.parametrize("seed", range(6))
def test_nobody_waits_longer_than_max_wait_and_a_load(seed: int) -> None:
    """Of n models that never fit together, all in demand, each waits for its own load and for n - 1 turns of the
    others: a load, max-wait, what was running then, and the end."""
    chance = random.Random(seed)
    names = MODELS[: chance.choice([2, 2, 3, 5])]
    load_s, hold_s, stop_s = 3.0, 2.0, 0.5
    specs = {name: Spec(name, slots=2, idle_timeout_s=None, footprint={"gpu0": 14}) for name in names}
    world = World(specs, Policy(max_wait_s=10.0, max_queue=1000, headroom=0), {"gpu0": 24}, lag_s=0.1)
    due: list[tuple[float, int, str]] = []  # when which lease ends
    free_at: dict[int, float] = dict.fromkeys(range(12), world.now)  # clients, each with one request at a time
    mine: dict[int, int] = {}
    stopped_at: dict[str, float] = {}
    while world.now < 600.0:
        for client, at in sorted(free_at.items()):
            if at <= world.now:
                mine[world.ask(chance.choice(names), 10_000.0)] = client
                del free_at[client]
        for waiter in set(world.leases) - {entry[1] for entry in due}:
            due.append((world.now + hold_s * chance.uniform(0.2, 1.0), waiter, world.leases[waiter]))
        for entry in sorted(due):
            if entry[0] <= world.now:
                world.give_back(entry[1])
                due.remove(entry)
                free_at[mine[entry[1]]] = world.now + chance.choice([0.0, 0.3, 4.0])
        for unit, engine in list(world.engines.items()):
            if engine.phase == "starting" and world.now - engine.began_at >= load_s:
                world.start_ends(unit)
            elif engine.phase == "stopping" and world.now - stopped_at.setdefault(unit, world.now) >= stop_s:
                del stopped_at[unit]
                world.gone(unit)
        world.pass_time(0.05)
        world.check()
    bound = (len(names) - 1) * (load_s + 10.0 + hold_s + stop_s + 0.2) + load_s + 0.5
    assert max(world.waits.values()) <= bound
