"""The few changes of state that several decisions share. Pure."""

from __future__ import annotations

from corral.errors import CorralError
from corral.scheduler.messages import Command, Drain, Reject, Sleep, Start, Stop, Wake
from corral.scheduler.state import Cause, Phase, Place, Scheduling, Waiter


def forget(state: Scheduling, waiter_id: int) -> Waiter | None:
    """Takes a waiter out of the books; nothing when it is not in them."""
    waiter = state.waiters.pop(waiter_id, None)
    if waiter is not None:
        place = state.places[waiter.model]
        if waiter.lease:
            place.line.remove(waiter_id, waiter.key)
        else:
            place.line.watchers.remove(waiter_id)
        if not place.line:
            for unit in state.units_of(place):
                unit.wanted_at, unit.short, unit.lacks = None, {}, ""
    return waiter


def reject_all(state: Scheduling, place: Place, error: CorralError, out: list[Command]) -> None:
    for waiter_id in list(place.line):
        forget(state, waiter_id)
        out.append(Reject(waiter_id, error))


def start(place: Place, now: float, out: list[Command], although: str = "") -> None:
    """Starts what is not there, and wakes what sleeps."""
    place.waking = place.phase is Phase.SLEEPING
    place.phase, place.generation = Phase.STARTING, place.generation + (not place.waking)
    place.swap_s = now - place.wanted_at if place.wanted_at is not None else 0.0
    place.started_at, place.load_s, place.wanted_at = now, 0.0, None
    place.error, place.paused_until, place.short = None, 0.0, {}
    place.sound = False
    place.lacked, place.lacks = place.lacks, ""
    out.append(Wake(place.name, place.generation) if place.waking else Start(place.name, place.generation, although))


def stop(place: Place, why: str, out: list[Command], cause: Cause) -> None:
    place.phase, place.stop_by, place.dozing, place.waking = Phase.STOPPING, None, False, False
    out.append(Stop(place.name, place.generation, why, cause))


def sleep(place: Place, why: str, out: list[Command], cause: Cause) -> None:
    """Has it give its memory back. Until it has, it counts as one that stops."""
    place.phase, place.dozing = Phase.STOPPING, True
    out.append(Sleep(place.name, place.generation, why, cause))


def drain(place: Place, stop_by: float, why: str, out: list[Command], cause: Cause) -> None:
    """Has the unit stopped once its leases have ended, or at `stop_by`."""
    if not place.resident or (place.phase is Phase.STOPPING and not place.dozing):
        return
    if place.phase is Phase.READY and not place.draining and place.leases:
        out.append(Drain(place.name, place.generation, why))
    place.stop_by = min(stop_by, place.stop_by) if place.stop_by is not None else stop_by
    place.stop_why, place.stop_cause = why, cause
