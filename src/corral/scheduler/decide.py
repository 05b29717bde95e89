"""Deciding: what happened goes in, what is to be done comes out. No clock, no sockets, no tasks.

`step` changes the given state in place and returns commands. It is deterministic: the same state, event and time give
the same commands. (A copy per step would cost more than the rest of a small request; see docs/architecture.md.)
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.errors import CorralError, UnknownModel
from corral.scheduler import refusals
from corral.scheduler.evict import conflict, fits, make_room
from corral.scheduler.messages import (
    Adopted,
    Asked,
    BecameReady,
    Closed,
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
    WakeAt,
)
from corral.scheduler.state import Phase, Place, Scheduling, Spec, Waiter

INFINITY = float("inf")

DOUBT_S = 0.1
"""How long a unit that dropped a connection gets no new work: a process's end is known well within it."""


def step(state: Scheduling, event: Event, now: float) -> list[Command]:
    """Applies `event` and returns what follows from it."""
    if type(event) is Asked:
        return _asked(state, event, now)
    if type(event) is Returned:
        return _returned(state, event, now)
    out: list[Command] = []
    _apply(state, event, now, out)
    _settle(state, now, out)
    return out


def _asked(state: Scheduling, event: Asked, now: float) -> list[Command]:
    place = state.places.get(event.model)
    if place is None or place.removed:
        return [Reject(event.waiter, UnknownModel(f"no model is called {event.model!r}", model=event.model))]
    if state.closing:
        return [Reject(event.waiter, refusals.closing())]
    if event.force:
        place.retry_at, place.error = 0.0, None
    open_now = place.phase is Phase.READY and not place.draining and not state.waiters and place.doubted_until <= now
    if open_now and event.lease and len(place.leases) < place.spec.capacity:  # the usual case, kept short
        place.leases[event.waiter] = now
        return [Grant(event.waiter, event.model, place.generation, 0.0, 0.0, 0.0)]
    if len(state.waiters) >= state.policy.max_queue:
        return [Reject(event.waiter, refusals.queue_full(state, place))]
    state.waiters[event.waiter] = Waiter(event.waiter, event.model, now, event.deadline, event.lease)
    place.waiting.append(event.waiter)
    out: list[Command] = []
    _settle(state, now, out)
    return out


def _returned(state: Scheduling, event: Returned, now: float) -> list[Command]:
    place = state.places.get(event.model)
    if place is None or (granted_at := place.leases.pop(event.waiter, None)) is None:
        return []  # of a generation that ended meanwhile
    place.mean_hold_s += 0.2 * (now - granted_at - place.mean_hold_s)
    if not place.leases:
        place.idle_since = now
    if state.waiters or place.draining:
        out: list[Command] = []
        _settle(state, now, out)
        return out
    if place.leases or place.spec.idle_timeout_s is None or place.spec.pin:
        return []
    return [WakeAt(now + place.spec.idle_timeout_s)]


def _apply(state: Scheduling, event: Event, now: float, out: list[Command]) -> None:
    match event:
        case Left(waiter):
            _forget(state, waiter)
        case BecameReady(model, generation):
            place = state.places.get(model)
            if place is not None and place.generation == generation and place.phase is Phase.STARTING:
                place.phase, place.idle_since, place.load_s = Phase.READY, now, now - place.started_at
                place.error = None
        case Doubted(model, generation):
            if (place := state.places.get(model)) is not None and place.generation == generation:
                place.doubted_until = now + DOUBT_S
        case Adopted(model, generation):
            if (place := state.places.get(model)) is not None and not place.resident:
                place.phase, place.generation, place.idle_since = Phase.READY, generation, now
        case Ended():
            _ended(state, event, out)
        case StopAsked(model, why):
            if (place := state.places.get(model)) is not None:
                place.retry_at, place.error = 0.0, None
                _reject_all(state, place, refusals.stopped(model, why), out)
                _drain(place, now + state.policy.drain_s, why, out)
        case Configured():
            _configured(state, event, out)
        case Closed():
            state.closing = True
            for place in state.places.values():
                _reject_all(state, place, refusals.closing(), out)


def _ended(state: Scheduling, event: Ended, out: list[Command]) -> None:
    place = state.places.get(event.model)
    if place is None or place.generation != event.generation or not place.resident:
        return
    failed_start = event.error is not None and place.phase is Phase.STARTING
    place.phase, place.stop_by, place.stop_why = Phase.ABSENT, None, ""
    place.leases.clear()
    place.retry_at, place.error = event.retry_at, event.error
    if failed_start and event.error is not None:
        _reject_all(state, place, event.error, out)
    if place.removed and not place.waiting:
        del state.places[event.model]


def _configured(state: Scheduling, event: Configured, out: list[Command]) -> None:
    specs, state.policy = event.specs, event.policy
    for name, place in list(state.places.items()):
        if name not in specs:
            place.removed = True
            gone = UnknownModel(f"{name} was removed from the configuration", model=name)
            _reject_all(state, place, gone, out)
            if place.resident:
                _drain(place, INFINITY, "it was removed from the configuration", out)
            else:
                del state.places[name]
    for name, spec in specs.items():
        known = state.places.get(name)
        if known is None:
            state.places[name] = Place(spec)
            continue
        place = known
        place.removed = False
        if name in event.outdated:
            place.retry_at, place.error = 0.0, None
            if place.resident:
                _drain(place, INFINITY, "its configuration changed", out)
        place.spec = spec
    while len(state.waiters) > state.policy.max_queue:
        waiter = state.waiters[next(reversed(state.waiters))]
        error = refusals.queue_full(state, state.places[waiter.model])
        _forget(state, waiter.id)
        out.append(Reject(waiter.id, error))


def _settle(state: Scheduling, now: float, out: list[Command]) -> None:
    """Everything that follows from the state as it stands: refusals, grants, stops, starts, the next wake-up."""
    wake = INFINITY
    for waiter in list(state.waiters.values()):
        if waiter.deadline <= now:
            _forget(state, waiter.id)
            out.append(Reject(waiter.id, refusals.too_late(state, waiter, now)))
        else:
            wake = min(wake, waiter.deadline)
    for place in state.places.values():
        if place.draining:
            if place.phase is Phase.ABSENT:
                place.stop_by = None
            elif place.phase in (Phase.READY, Phase.STARTING):
                # An outdated start is let go on only as long as it takes to stop it; nobody can hold a lease on it.
                if not place.leases or (place.stop_by or 0.0) <= now:
                    _stop(place, place.stop_why, out)
                else:
                    wake = min(wake, place.stop_by or INFINITY)
    if state.waiters:
        wake = min(wake, _grant(state, now, out))
    if state.waiters and not state.closing:
        wake = min(wake, _start(state, now, out))
    for place in state.places.values():
        wake = min(wake, _idle(place, now, out))
    if wake < INFINITY:
        out.append(WakeAt(wake))


def _grant(state: Scheduling, now: float, out: list[Command]) -> float:
    """Leases on ready units, to the oldest of each model first. Returns when to look again."""
    wake = INFINITY
    for place in state.places.values():
        if place.phase is not Phase.READY or place.draining:
            continue
        if place.doubted_until > now:
            wake = min(wake, place.doubted_until)
            continue
        for waiter_id in list(place.waiting):
            waiter = state.waiters[waiter_id]
            if waiter.lease and len(place.leases) >= place.spec.capacity:
                break
            if waiter.lease:
                held_until = _yields_at(state, place, waiter)
                if held_until <= now:
                    break
                wake = min(wake, held_until)
                place.leases[waiter_id] = now
            _forget(state, waiter_id)
            out.append(_granted(place, waiter, now))
    return wake


def _granted(place: Place, waiter: Waiter, now: float) -> Grant:
    waited_for_load = waiter.asked_at < place.started_at + place.load_s and place.load_s > 0
    load_s = min(place.load_s, now - waiter.asked_at) if waited_for_load else 0.0
    swap_s = min(place.swap_s, now - waiter.asked_at) if waited_for_load else 0.0
    return Grant(waiter.id, place.spec.name, place.generation, now - waiter.asked_at, load_s, swap_s)


def _yields_at(state: Scheduling, place: Place, waiter: Waiter) -> float:
    """When `place` stops taking work from `waiter`, because an older request waits for the room it takes."""
    for other in state.waiters.values():
        if other.asked_at >= waiter.asked_at:
            break
        rival = state.places[other.model]
        if rival is place or rival.resident:
            continue
        if rival.spec.priority < place.spec.priority:
            continue
        if place.spec.name in _in_the_way(state, rival):
            return other.asked_at + state.policy.max_wait_s
    return INFINITY


def _in_the_way(state: Scheduling, rival: Place) -> set[str]:
    standing = [p for p in state.places.values() if p.resident and p is not rival]
    clashing = {p.spec.name for p in standing if conflict(p.spec, rival.spec)}
    if not fits(state.policy, [rival.spec, *(p.spec for p in standing)]):
        return {p.spec.name for p in standing}
    return clashing


def _start(state: Scheduling, now: float, out: list[Command]) -> float:
    """Starts for models that somebody waits for, in order of service; makes room where it may be made."""
    wake, claims = INFINITY, list[Spec]()
    for place in _wanted(state):
        if place.phase is not Phase.ABSENT:
            claims.append(place.spec)  # starting, or stopping to come back: its room stays its own
            continue
        if place.retry_at > now:
            if place.error is not None:
                _reject_all(state, place, refusals.again(place.error, place.retry_at - now), out)
            else:
                wake = min(wake, place.retry_at)
            continue
        room = make_room(state, place.spec, claims)
        if room.impossible:
            _reject_all(state, place, refusals.cannot_fit(place.spec, room.impossible), out)
            continue
        claims.append(place.spec)
        if room.free:
            place.phase, place.generation = Phase.STARTING, place.generation + 1
            place.swap_s = now - place.wanted_at if place.wanted_at is not None else 0.0
            place.started_at, place.load_s, place.wanted_at = now, 0.0, None
            place.error, place.doubted_until = None, 0.0
            out.append(Start(place.spec.name, place.generation))
        elif not room.blocked_by:
            place.wanted_at = now if place.wanted_at is None else place.wanted_at
            for victim in room.evict:
                _stop(state.places[victim], f"making room for {place.spec.name}", out)
    return wake


def _wanted(state: Scheduling) -> Iterator[Place]:
    """Places that somebody waits for: higher priority first, then whoever has waited longest."""
    oldest: dict[str, float] = {}
    for waiter in state.waiters.values():
        oldest.setdefault(waiter.model, waiter.asked_at)
    order = sorted(oldest, key=lambda name: (-state.places[name].spec.priority, oldest[name]))
    return (state.places[name] for name in order)


def _idle(place: Place, now: float, out: list[Command]) -> float:
    timeout = place.spec.idle_timeout_s
    if timeout is None or place.spec.pin or place.phase is not Phase.READY or place.leases or place.waiting:
        return INFINITY
    if (due := place.idle_since + timeout) > now:
        return due
    _stop(place, "it was idle", out)
    return INFINITY


def _drain(place: Place, stop_by: float, why: str, out: list[Command]) -> None:
    if not place.resident or place.phase is Phase.STOPPING:
        return
    if place.phase is Phase.READY and not place.draining and place.leases:
        out.append(Drain(place.spec.name, place.generation, why))
    place.stop_by = min(stop_by, place.stop_by) if place.stop_by is not None else stop_by
    place.stop_why = why


def _stop(place: Place, why: str, out: list[Command]) -> None:
    place.phase, place.stop_by = Phase.STOPPING, None
    out.append(Stop(place.spec.name, place.generation, why))


def _forget(state: Scheduling, waiter_id: int) -> None:
    waiter = state.waiters.pop(waiter_id, None)
    if waiter is not None:
        place = state.places[waiter.model]
        place.waiting.remove(waiter_id)
        if not place.waiting:
            place.wanted_at = None


def _reject_all(state: Scheduling, place: Place, error: CorralError, out: list[Command]) -> None:
    for waiter_id in list(place.waiting):
        _forget(state, waiter_id)
        out.append(Reject(waiter_id, error))
