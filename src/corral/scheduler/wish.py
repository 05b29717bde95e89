"""Models that are to be there although nobody asks: by their schedule, or because the default comes back. Pure.

A wish waits for room and takes none from a request: it displaces only what was idle for a while, and what no other wish
wants.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.scheduler.evict import Claim
from corral.scheduler.messages import Command
from corral.scheduler.start import SPARE_IDLE_S, start_spare
from corral.scheduler.state import INFINITY, Keep, Phase, Place, Scheduling

RETRY_S = 300.0
"""How long after a failed start a wish tries again."""


def start_wished(state: Scheduling, claims: list[Claim], now: float, out: list[Command]) -> float:
    """Starts what is wished for and has room; when to look again."""
    wake = INFINITY
    for place in sorted(_wished(state), key=lambda each: (each.kept is not Keep.PIN, -each.spec.priority)):
        if not place.away or place.draining or place.dismissed or place.removed or place.line:
            continue
        retry_at = place.retry_at + RETRY_S if place.error is not None else place.retry_at
        if retry_at > now:
            wake = min(wake, retry_at)
        else:
            wake = min(wake, start_spare(state, place, claims, now, out, idle_s=SPARE_IDLE_S))
    return min(wake, _return(state, claims, now, out))


def _wished(state: Scheduling) -> Iterator[Place]:
    return (place for place in state.places.values() if place.kept is not None and place.first)


def _return(state: Scheduling, claims: list[Claim], now: float, out: list[Command]) -> float:
    """The default model, once nothing was asked of anybody for long enough."""
    policy = state.policy
    place = state.places.get(policy.default_model) if policy.default_model is not None else None
    if policy.return_s is None or place is None or not place.away or place.dismissed or place.removed:
        return INFINITY
    if state.waiters or any(each.leases or each.phase is Phase.STARTING for each in state.places.values()):
        return INFINITY  # that ends in an event
    idle_since = max(state.busy_at, max(each.idle_since for each in state.places.values()))
    retry_at = place.retry_at + RETRY_S if place.error is not None else place.retry_at
    if (due := max(idle_since + policy.return_s, retry_at)) > now:
        return due
    return start_spare(state, place, claims, now, out, idle_s=0.0)
