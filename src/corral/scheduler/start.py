"""Starts for models that somebody waits for, and the room they need. Pure."""

from __future__ import annotations

from corral.scheduler import refusals
from corral.scheduler.acts import reject_all, sleep, start, stop
from corral.scheduler.evict import Claim, Room, make_room
from corral.scheduler.memory import confirmed, foresee, suffices_mapped
from corral.scheduler.messages import Command, Foretell, Lacks, Plan
from corral.scheduler.state import INFINITY, Phase, Place, Scheduling

SPARE_IDLE_S = 60.0
"""What is started without need, such as a further replica, displaces only units that were idle for so long."""

SPARE_LOOK_S = 10.0
"""How often what is started without need looks for memory that others hold: a GPU may want to sleep."""


FORETOLD_S = 10.0
"""How often it is found out anew what something would take that nobody waits for alone, while it is held up."""


def start_wanted(state: Scheduling, now: float, out: list[Command]) -> tuple[float, list[Claim]]:
    """In order of service: starts what has room, makes room where it may be made, and keeps it for the one it was made
    for. Returns when to look again, and what was promised."""
    wake, claims = INFINITY, list[Claim]()
    crowded: list[Place] = []
    for asked_at, first in _wanted(state):
        units = state.units_of(first)
        alive = [unit for unit in units if unit.phase in (Phase.STARTING, Phase.READY) and not unit.draining]
        absent = [unit for unit in units if unit.away and not unit.draining]
        if alive or not absent:
            # What starts, or stops to come back, keeps its room.
            claims += [Claim(unit) for unit in units if unit.resident]
            if alive and absent:
                crowded += _one_more(first, alive, absent, now)
            continue
        place = min(absent, key=lambda unit: (unit.retry_at, unit.phase is Phase.ABSENT))  # who sleeps is there sooner
        if place.retry_at > now:
            if place.error is not None:
                reject_all(state, first, refusals.again(place.error, place.retry_at - now), out)
            else:
                wake = min(wake, place.retry_at)
            continue
        wake = min(wake, _start_one(state, place, claims, asked_at, now, out))
    for place in crowded:
        wake = min(wake, start_spare(state, place, claims, now, out, idle_s=SPARE_IDLE_S))
    return wake, claims


def _start_one(
    state: Scheduling, place: Place, claims: list[Claim], asked_at: float, now: float, out: list[Command]
) -> float:
    room = make_room(state, place, claims, now=now, asked_at=asked_at)
    if room.impossible:
        reject_all(state, place, refusals.cannot_fit(place, room.impossible, room.hint), out)
        return INFINITY
    wake = room.again_at
    if place.planning or not (room.free or _is_sound(state, place, out)):
        claims.append(Claim(place, room.goes))
        return INFINITY  # until that is known
    if room.free:
        there, wake = confirmed(state, place, now, out)
        if there:
            start(place, now, out)
        elif place.short:
            room = make_room(state, place, claims, now=now, asked_at=asked_at, short=place.short)
            wake = min(wake, room.again_at)
            if room.short and suffices_mapped(state, place):  # nothing of ours could free it: slow is better than never
                start(
                    place, now, out, f", although it {place.short_why}: what is missing is read from its file each time"
                )
    claims.append(Claim(place, room.goes))
    if place.away:
        if not (room.blocked_by or room.short):
            _evict(state, place, room, now, out)
        elif place.short:
            _tell_lack(place, out)
    return wake


def _is_sound(state: Scheduling, place: Place, out: list[Command]) -> bool:
    """Whether a start of `place` is known to have a plan, so that others may go for it; has that found out.

    A file that is not there, a wrong flag or an engine that is not installed must not cost anybody else their model.
    """
    if not state.plans or place.sound or place.phase is Phase.SLEEPING:
        return True
    if not place.planning:
        place.planning = True
        out.append(Plan(place.name, place.generation + 1))
    return False


def _tell_lack(place: Place, out: list[Command]) -> None:
    """Says once for each start what memory it waits for."""
    if not place.lacks:
        out.append(Lacks(place.name, place.short_why, dict(place.short)))
    place.lacks = place.short_why


def start_spare(
    state: Scheduling, place: Place, claims: list[Claim], now: float, out: list[Command], *, idle_s: float
) -> float:
    """Starts what nobody waits for alone, if that displaces nothing but units idle for `idle_s`.

    While it is held up, it is found out now and then what it would take: that may be less when there is less room.
    """
    wake = _start_spare(state, place, claims, now, out, idle_s)
    only_looked_for = state.seen.looking
    if place.away and not only_looked_for and now - place.foretold_at >= FORETOLD_S:
        place.foretold_at = now
        out.append(Foretell(place.name))
    return wake


def _start_spare(
    state: Scheduling, place: Place, claims: list[Claim], now: float, out: list[Command], idle_s: float
) -> float:
    room = make_room(state, place, claims, now=now, asked_at=now)
    victims = [state.places[name] for name in room.evict]
    idle_at = max((unit.idle_since + idle_s for unit in victims), default=now)
    if room.impossible or room.short or room.blocked_by or any(unit.kept is not None for unit in victims):
        return room.again_at
    if idle_at > now:
        return idle_at
    if place.planning:
        claims.append(Claim(place, room.goes))
        return INFINITY
    wake = INFINITY
    if room.free:
        there, wake = confirmed(state, place, now, out)
        if there:
            start(place, now, out)
        if place.short and wake < INFINITY:  # others hold it, perhaps for hours
            wake = max(wake, state.seen.at + SPARE_LOOK_S)
        if place.short and place.first:
            _tell_lack(place, out)
        place.short = {}  # it is not for this that others should go
    claims.append(Claim(place, room.goes))
    _evict(state, place, room, now, out)
    return wake


def _evict(state: Scheduling, place: Place, room: Room, now: float, out: list[Command]) -> None:
    if room.evict and not _is_sound(state, place, out):
        return
    if room.evict or room.waits_for:
        place.wanted_at = now if place.wanted_at is None else place.wanted_at
    if room.evict:
        foresee(state, place, now, out)
    for victim in room.evict:
        end = sleep if victim in room.sleep else stop
        end(state.places[victim], f"making room for {place.name}", out, "room")


def _one_more(first: Place, alive: list[Place], absent: list[Place], now: float) -> list[Place]:
    """The next replica, where those that there are cannot take everybody."""
    if any(unit.phase is Phase.STARTING for unit in alive):
        return []
    free = sum(unit.spec.capacity - len(unit.leases) for unit in alive)
    ready = [unit for unit in absent if unit.retry_at <= now]
    return ready[:1] if len(first.line) > free else []


def _wanted(state: Scheduling) -> list[tuple[float, Place]]:
    """Models that somebody waits for, and since when: higher priority first, then whoever has waited longest."""
    since = state.waiting_models()
    order = sorted(since, key=lambda name: (-state.places[name].spec.priority, since[name]))
    return [(since[name], state.places[name]) for name in order]
