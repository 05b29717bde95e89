"""What an event changes in the state by itself, before anything is decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corral.errors import UnknownModel
from corral.scheduler import memory, refusals
from corral.scheduler.acts import drain, forget, reject_all
from corral.scheduler.messages import (
    Adopted,
    BecameReady,
    Closed,
    Command,
    Configured,
    Doubted,
    Ended,
    Event,
    Left,
    Measured,
    MemorySeen,
    Mended,
    Paused,
    Planned,
    Reject,
    Scheduled,
    Slept,
    StopAsked,
)
from corral.scheduler.state import INFINITY, Phase, Place, Scheduling, Spec

DOUBT_S = 0.1
"""How long a unit that dropped a connection gets no new work: a process's end is known well within it."""
ASKED_S = 0.5
"""The same of one that Corral did not start, which has to be asked."""


def apply(state: Scheduling, event: Event, now: float, out: list[Command]) -> None:
    match event:
        case Left(waiter):
            forget(state, waiter)
        case BecameReady(model, generation):
            place = state.places.get(model)
            if place is not None and place.generation == generation and place.phase is Phase.STARTING:
                _ready(place, now)
        case Doubted(model, generation):
            if (place := state.places.get(model)) is not None and place.generation == generation:
                doubt_s = ASKED_S if place.spec.elsewhere else DOUBT_S
                place.paused_until = max(place.paused_until, now + doubt_s)
        case Paused(model, generation, on):
            if (place := state.places.get(model)) is not None and place.generation == generation:
                place.paused_until = INFINITY if on else now
        case Adopted(model, generation):
            if (place := state.places.get(model)) is not None and not place.resident:
                place.phase, place.generation = Phase.READY, generation
                place.idle_since = place.ready_at = now
        case Ended():
            _ended(state, event, now, out)
        case Planned(model, generation):
            if (place := state.places.get(model)) is not None and place.planning:
                place.planning, place.sound = False, generation == place.generation + 1
        case Slept(model, generation):
            place = state.places.get(model)
            if place is not None and place.generation == generation and place.resident and not place.leases:
                place.phase, place.dozing, place.ended_at = Phase.SLEEPING, False, now
                memory.freed(state, place, now)
        case MemorySeen():
            memory.see(state, event)
        case Measured(model, footprint, real, load_s, mapped, asleep):
            if load_s is not None and (place := state.places.get(model)) is not None:
                for unit in state.units_of(place):
                    unit.usual_load_s = unit.usual_load_s or load_s
            if (place := state.places.get(model)) is not None and (real or _may_be_told(state, place)):
                for unit in state.units_of(place):
                    if unit is place or not unit.resident:  # what is there keeps what it was seen to take itself
                        unit.spec = replace(place.spec, footprint=footprint, mapped=mapped, asleep=asleep)
                        unit.measured, unit.short = real, {}
        case Scheduled(keep):
            for place in state.places.values():
                kept = keep.get(place.name)
                if kept is not place.kept:
                    place.kept, place.dismissed = kept, False
                    place.idle_since = now if kept is None else place.idle_since
        case Mended(model):
            for place in state.places.values():
                if place.model == model and not place.resident:
                    place.retry_at, place.error = 0.0, None
        case StopAsked(model, why, anew, within_s, cause):
            if (place := state.places.get(model)) is not None:
                if anew:
                    drain(place, now + within_s, why, out, cause)
                else:
                    _stop_asked(state, place, why, now, out)
        case Configured():
            _configured(state, event, now, out)
        case Closed():
            state.closing = True
            for place in state.places.values():
                reject_all(state, place, refusals.closing(), out)


def _may_be_told(state: Scheduling, place: Place) -> bool:
    """Whether a prediction counts: not against what a unit that is there was seen to take."""
    return not place.spec.footprint or not any(unit.resident for unit in state.units_of(place))


def _ready(place: Place, now: float) -> None:
    place.phase, place.idle_since, place.ready_at, place.load_s = Phase.READY, now, now, now - place.started_at
    if not place.waking:  # which takes a part of a load
        place.usual_load_s += (0.3 if place.usual_load_s else 1.0) * (place.load_s - place.usual_load_s)
    place.error, place.waking = None, False


def _ended(state: Scheduling, event: Ended, now: float, out: list[Command]) -> None:
    place = state.places.get(event.model)
    if place is not None and place.planning and event.generation == place.generation + 1:
        _cannot_be_planned(state, place, event, out)
        return
    if place is None or place.generation != event.generation or not place.resident:
        return
    failed_start = event.error is not None and place.phase is Phase.STARTING
    if place.load_s > 0 or place.phase is Phase.READY:
        place.ended_at = now
    place.phase, place.stop_by, place.stop_why = Phase.ABSENT, None, ""
    place.dozing = place.waking = False
    place.leases.clear()
    place.retry_at, place.error, place.keep_s = event.retry_at, event.error, None
    memory.freed(state, place, now)
    if failed_start:
        _refuse_unserved(state, place, out)
    if place.removed and not (place.first and place.line):
        del state.places[event.model]


def _cannot_be_planned(state: Scheduling, place: Place, event: Ended, out: list[Command]) -> None:
    """A start that failed before anything went for it."""
    place.planning = place.sound = False
    place.generation, place.retry_at, place.error = event.generation, event.retry_at, event.error
    _refuse_unserved(state, place, out)


def _refuse_unserved(state: Scheduling, place: Place, out: list[Command]) -> None:
    """Tells those who wait what a start failed for, unless a replica may still serve them."""
    alive = any(unit.phase in (Phase.STARTING, Phase.READY) for unit in state.units_of(place))
    if place.error is not None and not alive:
        reject_all(state, place, place.error, out)


def _stop_asked(state: Scheduling, place: Place, why: str, now: float, out: list[Command]) -> None:
    state.busy_at = now
    reject_all(state, place, refusals.stopped(place.model, why), out)
    for unit in state.units_of(place):
        unit.retry_at, unit.error, unit.dismissed = 0.0, None, True
        drain(unit, now + state.policy.drain_s, why, out, "asked")


def _configured(state: Scheduling, event: Configured, now: float, out: list[Command]) -> None:
    specs, state.policy = units(event.specs), event.policy
    for name, place in list(state.places.items()):
        if name not in specs:
            place.removed = True
            if place.first:
                gone = UnknownModel(f"{name} was removed from the configuration", model=name)
                reject_all(state, place, gone, out)
            if place.resident:
                why = "it was removed from the configuration" if place.first else "it has fewer replicas now"
                drain(place, INFINITY, why, out, "configuration")
            else:
                del state.places[name]
    for name, spec in specs.items():
        known = state.places.get(name)
        if known is None:
            known = state.places[name] = Place(spec, name)
        elif spec.name in event.outdated:
            known.retry_at, known.error = 0.0, None
            if known.resident:
                drain(known, INFINITY, "its configuration changed", out, "configuration")
        elif known.measured or not spec.footprint:
            spec = replace(spec, footprint=known.spec.footprint, mapped=known.spec.mapped, asleep=known.spec.asleep)
        if spec.name in event.outdated:
            known.measured = known.sound = False
        known.spec, known.removed, known.short = spec, False, {}
        known.line = state.places[spec.name].line
    while len(state.waiters) > state.policy.max_queue:
        waiter = state.waiters[next(reversed(state.waiters))]
        error = refusals.queue_full(state, state.places[waiter.model], now)
        forget(state, waiter.id)
        out.append(Reject(waiter.id, error))


def units(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    """The spec of every unit that there may be, by the unit's name: each model's first unit before its others."""
    found = dict(specs)
    for name, spec in specs.items():
        found.update({f"{name}~{number}": spec for number in range(2, spec.replicas + 1)})
    return found
