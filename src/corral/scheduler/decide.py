"""Deciding: what happened goes in, what is to be done comes out. No clock, no sockets, no tasks.

`step` changes the given state in place and returns commands. It is deterministic: the same state, event and time give
the same commands. (A copy per step would cost more than the rest of a small request; see docs/architecture.md.)
"""

from __future__ import annotations

from corral.errors import UnknownModel
from corral.scheduler import refusals
from corral.scheduler.acts import forget, stop
from corral.scheduler.apply import apply
from corral.scheduler.evict import Claim
from corral.scheduler.grant import grant
from corral.scheduler.idle import rest
from corral.scheduler.messages import Asked, Command, Event, Grant, Reject, Returned, WakeAt
from corral.scheduler.start import start_wanted
from corral.scheduler.state import INFINITY, Phase, Place, Scheduling, Waiter
from corral.scheduler.wish import start_wished

_READY = Phase.READY  # a member of an enumeration is slow to come by


def step(state: Scheduling, event: Event, now: float) -> list[Command]:
    """Applies `event` and returns what follows from it."""
    if type(event) is Asked:
        return _asked(state, event, now)
    if type(event) is Returned:
        return [] if (held := state.places.get(event.model)) is None else give_back(state, event.waiter, held, now)
    out: list[Command] = []
    apply(state, event, now, out)
    _settle(state, now, out)
    return out


def _asked(state: Scheduling, event: Asked, now: float) -> list[Command]:
    place = state.places.get(event.model)
    if place is None or place.removed or not place.first:
        return [Reject(event.waiter, UnknownModel(f"no model is called {event.model!r}", model=event.model))]
    if state.closing:
        return [Reject(event.waiter, refusals.closing())]
    if event.force:
        place.retry_at, place.error = 0.0, None
    if event.lease and (unit := grant_now(state, event.waiter, event.model, now, event.keep_s)) is not None:
        return [Grant(event.waiter, unit.name, unit.generation, 0.0, 0.0, 0.0)]  # the usual case
    return _waits(state, place, event, now)


def grant_now(state: Scheduling, waiter: int, model: str, now: float, keep_s: float | None = None) -> Place | None:
    """The unit of `model` on which `waiter` holds a lease from now on; None, and nothing is changed, where it would
    have to wait or be refused. It is `step` of `Asked` in the usual case, for those who have no time for more."""
    place = state.places.get(model)
    if place is None or state.waiters or state.closing or place.removed or not place.first:
        return None
    if place.spec.replicas > 1:
        place = _least_loaded(state, place)
    if place.phase is not _READY or place.stop_by is not None or place.paused_until > now:
        return None
    leases = place.leases
    if len(leases) >= place.spec.capacity:
        return None
    leases[waiter] = now
    if keep_s is not None:
        place.keep_s = keep_s
    return place


def _least_loaded(state: Scheduling, place: Place) -> Place:
    """The unit of the same model that has the most room, among those that take work."""
    open_now = [p for p in state.units_of(place) if p.phase is Phase.READY and not p.draining]
    return min(open_now, key=lambda p: len(p.leases), default=place)


def _waits(state: Scheduling, place: Place, event: Asked, now: float) -> list[Command]:
    if len(state.waiters) >= state.policy.max_queue:
        return [Reject(event.waiter, refusals.queue_full(state, place, now))]
    if not place.line:
        for unit in state.units_of(place):
            unit.sound = False  # what was found out for those who waited before says nothing now
    if event.lease:
        place.line.add(event.waiter, event.key)
    else:
        place.line.watchers.append(event.waiter)
    position = place.line.place_of(event.waiter, event.key) if event.lease else 0
    waiter = Waiter(event.waiter, event.model, now, event.deadline, event.lease, event.key, event.keep_s, position)
    state.waiters[event.waiter] = waiter
    state.next_deadline = min(state.next_deadline, event.deadline)
    state.busy_at = now
    for unit in state.units_of(place):
        unit.dismissed = False
    out: list[Command] = []
    _settle(state, now, out)
    return out


def give_back(state: Scheduling, waiter: int, place: Place, now: float) -> list[Command]:
    """`step` of `Returned`. `place` need not be one of the state's any more."""
    if (granted_at := place.leases.pop(waiter, None)) is None:
        return []  # of a generation that ended meanwhile
    place.mean_hold_s += 0.2 * (now - granted_at - place.mean_hold_s)
    if not place.leases:
        place.idle_since = now
    if state.waiters or place.stop_by is not None:
        out: list[Command] = []
        _settle(state, now, out)
        return out
    if place.leases:
        return []
    rest_s, return_s = place.rest_s, state.policy.return_s
    if return_s is not None and return_s < rest_s:
        rest_s = return_s
    return [] if rest_s == INFINITY else [WakeAt(now + rest_s)]


def _settle(state: Scheduling, now: float, out: list[Command]) -> None:
    """Everything that follows from the state as it stands: refusals, grants, stops, starts, the next wake-up."""
    if state.next_deadline <= now:
        _refuse_late(state, now, out)
    wake = min(state.next_deadline, _drains(state, now, out))
    if state.waiters:
        wake = min(wake, grant(state, now, out))
    claims: list[Claim] = []
    if state.waiters and not state.closing:
        again_at, claims = start_wanted(state, now, out)
        wake = min(wake, again_at)
    if not state.closing:
        wake = min(wake, start_wished(state, claims, now, out))
    wake = min(wake, rest(state, now, out))
    if wake < INFINITY:
        out.append(WakeAt(wake))


def _refuse_late(state: Scheduling, now: float, out: list[Command]) -> None:
    late = [waiter for waiter in state.waiters.values() if waiter.deadline <= now]
    for waiter in late:
        error = refusals.too_late(state, waiter, now)
        forget(state, waiter.id)
        out.append(Reject(waiter.id, error))
    state.next_deadline = min((waiter.deadline for waiter in state.waiters.values()), default=INFINITY)


def _drains(state: Scheduling, now: float, out: list[Command]) -> float:
    """Stops draining units that have nothing left to do, or no time."""
    wake = INFINITY
    for place in state.places.values():
        if place.stop_by is None:
            continue
        if place.phase is Phase.ABSENT:
            place.stop_by = None
        elif place.phase is not Phase.STOPPING:
            # An outdated start is let go on only as long as it takes to stop it; nobody can hold a lease on it.
            if not place.leases or place.stop_by <= now:
                stop(place, place.stop_why, out, place.stop_cause)
            else:
                wake = min(wake, place.stop_by)
    return wake
