"""What somebody who waits may expect: the place in line, and how long it takes. Pure."""

from __future__ import annotations

from corral.scheduler.evict import reload_s
from corral.scheduler.state import Phase, Place, Scheduling, Waiter

_LEAST_REST = 0.1
"""Of what a load has taken, its rest is never expected to be less: nobody knows the moment."""


def place_in_line(state: Scheduling, waiter: Waiter) -> int:
    """Which turn on its model that of `waiter` is, keys taking turns: 1 is the next."""
    line = state.places[waiter.model].line
    return line.place_of(waiter.id, waiter.key) if waiter.lease else 1


def expected_rest_s(loading: Place, now: float) -> float:
    """How much longer a load is expected to take: as long as it usually does, and once that has passed, as long again
    as it is late. (What was never loaded is only guessed by its size, so that a slow disk makes it late by minutes.)"""
    so_far_s = now - loading.started_at
    return max(abs(reload_s(loading) - so_far_s), so_far_s * _LEAST_REST)


def expected_wait_s(state: Scheduling, place: Place, now: float, turn: int | None = None) -> float:
    """A rough expectation for the one whose turn on `place`'s model is `turn`; None = for one who joins now."""
    units = state.units_of(place)
    serving = [unit for unit in units if unit.phase is Phase.READY and not unit.draining]
    loading = [unit for unit in units if unit.phase is Phase.STARTING]
    ahead = (len(place.line) if turn is None else turn - 1) + sum(len(unit.leases) for unit in serving)
    wait_s = place.mean_hold_s * ahead / (place.spec.slots * max(1, len(serving)))
    if serving:
        return wait_s
    if loading:
        return wait_s + min(expected_rest_s(unit, now) for unit in loading)
    return wait_s + place.swap_s + max(reload_s(place), place.retry_at - now)
