"""Putting an engine to sleep and waking it: what is asked of it, and what follows when it does not.

Source: vLLM's `/sleep?level=`, `/wake_up` and `/is_sleeping`, which it has with VLLM_SERVER_DEV_MODE. At level 1 its
weights wait in the machine's memory; at level 2 they are dropped, and read again from their files on waking.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final, Protocol

from corral import clock
from corral.engines.plan import Endpoint, LaunchPlan
from corral.supervisor.looks import ask
from corral.supervisor.machine import Event, State
from corral.supervisor.unit import Unit

SLEEP_WITHIN_S: Final = 120.0
"""How long it may take: weights of a hundred gigabytes are copied in that."""

_LOOK_S: Final = 0.05

_Steps = tuple[tuple[str, dict[str, str]], ...]
_WAKE: Final[_Steps] = (("/wake_up", {}),)
_WAKE_AND_READ: Final[_Steps] = (
    ("/wake_up?tags=weights", {}),
    ("/collective_rpc", {"method": "reload_weights"}),
    ("/wake_up?tags=kv_cache", {}),
)


class Grants(Protocol):
    """Who lets requests in: the scheduler."""

    def pause(self, model: str, generation: int, on: bool) -> None: ...

    def is_busy(self, model: str) -> bool: ...


async def sleep(unit: Unit, why: str) -> None:
    """Has a ready engine give its memory back, and tells; one that does not is stopped."""
    plan, generation = unit.plan, unit.generation
    if plan is None or unit.state is not State.READY:
        return
    began = clock.monotonic()
    found = await ask(plan.endpoint, f"/sleep?level={plan.sleep}", within_s=SLEEP_WITHIN_S, body={})
    sleeps = found is not None and found[0] == 200 and await asleep(plan.endpoint)
    if unit.generation != generation or unit.state is not State.READY:
        return  # it was stopped or ended meanwhile, which is told
    if sleeps:
        unit.shows(Event.SLEPT, f"{why}; asleep within {(clock.monotonic() - began) * 1000:.0f} ms")
        return
    said = "no answer" if found is None else f"{found[0]} {found[1][:200].decode(errors='replace')}"
    unit.warn(f"{unit.name} does not sleep and is stopped: {said}")
    await unit.stop(why)


async def notice(unit: Unit, grants: Grants) -> None:
    """Takes up that somebody else had a ready engine sleep: nothing more is sent to it, and it counts as asleep once
    what it was answering has ended. Waking needs no such look: who asks a sleeping engine for anything wakes it."""
    plan, generation, model = unit.plan, unit.generation, unit.model.name
    if plan is None or not plan.sleep or unit.state is not State.READY or not await asleep(plan.endpoint):
        return
    grants.pause(model, generation, True)
    deadline = clock.monotonic() + SLEEP_WITHIN_S
    try:
        while grants.is_busy(model):
            if clock.monotonic() > deadline or unit.generation != generation or unit.state is not State.READY:
                return  # what is stuck in it is found by `watch`, as in any engine
            await asyncio.sleep(_LOOK_S)
        if unit.generation == generation and unit.state is State.READY and await asleep(plan.endpoint):
            unit.shows(Event.SLEPT, "it was asked to by somebody who reached it past Corral")
    finally:
        grants.pause(model, generation, False)


async def wake(unit: Unit) -> None:
    """Has a sleeping engine serve again, and tells; one that does not is killed, and all is as after a crash."""
    plan, generation = unit.plan, unit.generation
    if plan is None or unit.state is not State.SLEEPING:
        return
    began = clock.monotonic()
    problem = await _woken(plan, began + unit.timeouts.start_s)
    if unit.generation != generation or unit.state is not State.SLEEPING:
        return
    if problem:
        await unit.end_hung(f"it did not wake up: {problem}")
        return
    unit.shows(Event.WOKE, f"awake within {(clock.monotonic() - began) * 1000:.0f} ms")


async def _woken(plan: LaunchPlan, deadline: float) -> str:
    """Why it is not awake; empty when it is."""
    for path, body in _WAKE_AND_READ if plan.sleep > 1 else _WAKE:
        found = await ask(plan.endpoint, path, within_s=max(0.1, deadline - clock.monotonic()), body=body)
        if found is None:
            return f"no answer to {path}"
        if found[0] != 200:
            return f"{path} was answered {found[0]} {found[1][:200].decode(errors='replace')}"
    while await asleep(plan.endpoint):
        if clock.monotonic() > deadline:
            return "it says that it sleeps"
        await asyncio.sleep(0.05)
    return ""


async def asleep(endpoint: Endpoint) -> bool:
    """Whether it says that it sleeps."""
    found = await ask(endpoint, "/is_sleeping", within_s=5.0)
    if found is None or found[0] != 200:
        return False
    try:
        said = json.loads(found[1])
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("is_sleeping") is True
