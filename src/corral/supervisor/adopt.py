"""Engines that outlived an earlier daemon: taken over when they are what would be started now, ended otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from corral.config.settings import Settings
from corral.engines.adapter import Adapter, Start
from corral.engines.plan import LaunchPlan
from corral.engines.report import plain
from corral.errors import CorralError
from corral.events import EventLog
from corral.runners.runner import Survivor
from corral.supervisor.fleet import Fleet
from corral.supervisor.machine import Event, State
from corral.supervisor.probe import check
from corral.supervisor.rest import asleep


async def adopt_survivors(
    survivors: Iterable[Survivor],
    fleet: Fleet,
    settings: Settings,
    adapters: Mapping[str, Adapter],
    events: EventLog,
    on_adopted: Callable[[str, int], None],
) -> list[str]:
    """Names of the models whose engines of `survivors` were adopted. The others have been stopped when this returns.

    `on_adopted(model, generation)` is called in one step with each adoption: the engine's end, which may come at any
    moment, is never told first.
    """
    adopted: list[str] = []
    endings = []
    for survivor in survivors:
        why_not = await _why_not(survivor, fleet, adapters, taken=adopted)
        if why_not:
            text = f"{survivor.plan.unit} ran on from before and was stopped: {why_not}"
            events.post("unit.ended", text, model=survivor.plan.model, unit=survivor.plan.unit, why=why_not)
            endings.append(survivor.running.stop(settings.timeouts.stop_s))
            continue
        unit = fleet.get(survivor.plan.model)
        assert unit is not None  # _why_not looked
        unit.adopt(survivor.plan, survivor.running, survivor.log, survivor.started_wall_s)
        on_adopted(survivor.plan.model, unit.generation)
        if survivor.plan.sleep and await asleep(survivor.plan.endpoint) and unit.state is State.READY:
            unit.shows(Event.SLEPT, "it was asleep already")
        adopted.append(survivor.plan.model)
    await asyncio.gather(*endings)
    return adopted


async def _why_not(survivor: Survivor, fleet: Fleet, adapters: Mapping[str, Adapter], taken: list[str]) -> str:
    old = survivor.plan
    model = fleet.wanted(old.model)
    if model is None or fleet.get(old.model) is None:
        return "no model of that name is configured any more"
    if old.model in taken:
        return "another engine of the same model runs"
    try:
        start = Start(model, old.generation, old.endpoint, old.room, old.step)
        new = await asyncio.to_thread(adapters[model.engine].plan, start)
    except CorralError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - one odd model must not keep a server from starting
        return f"it cannot be planned: {type(error).__name__}: {error}"
    if not same_launch(old, new):
        return "its configuration changed meanwhile"
    if await check(old.endpoint, old.probe) != 200:
        return "it does not answer"
    return ""


def same_launch(one: LaunchPlan, other: LaunchPlan) -> bool:
    """Whether the two would run the same: what is only predicted or said about them does not count."""
    one, other = replace(one, argv=plain(one.argv)), replace(other, argv=plain(other.argv))
    said = {name: getattr(other, name) for name in ("footprint", "warnings", "limits", "says_more")}
    return replace(one, **said) == other
