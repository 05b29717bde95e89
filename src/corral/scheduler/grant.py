"""Who of those that wait gets a lease now. Pure."""

from __future__ import annotations

from corral.lazy_dataclass import dataclass
from corral.scheduler.acts import forget
from corral.scheduler.evict import make_room, residency_s
from corral.scheduler.messages import Command, Grant
from corral.scheduler.state import INFINITY, Phase, Place, Scheduling, Waiter


@dataclass(frozen=True, slots=True)
class _Rival:
    """A model that cannot start because `in_the_way` is resident, and since when somebody waits for it."""

    asked_at: float
    in_the_way: frozenset[str]


def grant(state: Scheduling, now: float, out: list[Command]) -> float:
    """Leases on ready units, keys taking turns. Returns when to look again."""
    wake = INFINITY
    rivals: list[_Rival] | None = None
    for place in _by_load(state):
        if place.phase is not Phase.READY or place.stop_by is not None or not place.line:
            continue
        if place.paused_until > now:
            wake = min(wake, place.paused_until)
            continue
        for waiter_id in list(place.line.watchers):
            _give(state, place, waiter_id, now, out)
        if not place.line or len(place.leases) >= place.spec.capacity:
            continue
        if rivals is None:
            rivals = _rivals(state, now)
        yields = [rival for rival in rivals if place.name in rival.in_the_way]

        def held_until(waiter_id: int, place: Place = place, yields: list[_Rival] = yields) -> float:
            return _held_until(state, place, state.waiters[waiter_id].asked_at, yields)

        while len(place.leases) < place.spec.capacity:
            turn = place.line.next(lambda waiter_id: held_until(waiter_id) > now)
            if turn is None:
                break
            wake = min(wake, held_until(turn))
            place.leases[turn] = now
            _give(state, place, turn, now, out)
    return wake


def _held_until(state: Scheduling, place: Place, asked_at: float, yields: list[_Rival]) -> float:
    """When the unit stops taking work that was asked for at `asked_at`, because others wait for the room it takes.

    That is when the first of them has waited for `max_wait`, but not before the unit had its own turn: a moment for
    everybody, and `max_wait` for those who waited for its load. Else each load would serve one request.
    """
    if not yields:
        return INFINITY
    turn_s = state.policy.max_wait_s if asked_at <= place.ready_at else residency_s(state, place)
    return max(min(rival.asked_at for rival in yields) + state.policy.max_wait_s, place.ready_at + turn_s)


def _by_load(state: Scheduling) -> list[Place]:
    """Every unit; of one model's, the least loaded comes first."""
    if any(not place.first for place in state.places.values()):
        return sorted(state.places.values(), key=lambda place: len(place.leases))
    return list(state.places.values())


def _give(state: Scheduling, place: Place, waiter_id: int, now: float, out: list[Command]) -> None:
    waiter = forget(state, waiter_id)
    assert waiter is not None
    if waiter.keep_s is not None:
        place.keep_s = waiter.keep_s
    out.append(_granted(place, waiter, now))


def _granted(place: Place, waiter: Waiter, now: float) -> Grant:
    waited_for_load = waiter.asked_at < place.started_at + place.load_s and place.load_s > 0
    load_s = min(place.load_s, now - waiter.asked_at) if waited_for_load else 0.0
    swap_s = min(place.swap_s, now - waiter.asked_at) if waited_for_load else 0.0
    queued_s, lacked = now - waiter.asked_at, place.lacked if waited_for_load else ""
    return Grant(waiter.id, place.name, place.generation, queued_s, load_s, swap_s, waiter.position, lacked)


def _rivals(state: Scheduling, now: float) -> list[_Rival]:
    """Models that somebody waits for, of which no unit is there: on each device the first in order of service, whose
    turn is the next. The others wait for theirs behind it, and nobody is held up for them yet."""
    since, found, devices = state.waiting_models(), list[_Rival](), set[str]()
    for model in sorted(since, key=lambda name: (-state.places[name].spec.priority, since[name])):
        place = state.places[model]
        own = set(place.spec.footprint) or {""}
        if own & devices or any(unit.resident for unit in state.units_of(place)):
            continue
        room = make_room(state, place, now=now, asked_at=since[model], short=place.short)
        if room.goes and all(state.places[name].spec.priority <= place.spec.priority for name in room.goes):
            found.append(_Rival(since[model], room.goes))
            devices |= own
    return found
