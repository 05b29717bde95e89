"""Units that were idle for long enough: they go to sleep or end. Pure."""

from __future__ import annotations

from corral.scheduler.acts import sleep, stop
from corral.scheduler.messages import Command
from corral.scheduler.state import INFINITY, Phase, Scheduling


def rest(state: Scheduling, now: float, out: list[Command]) -> float:
    """Stops what nobody needed for long enough; when to look again."""
    wake = INFINITY
    policy = state.policy
    for place in state.places.values():
        if place.phase is not Phase.READY or place.leases or place.line or (rest_s := place.rest_s) == INFINITY:
            continue
        if policy.return_s is not None and place.name == policy.default_model and place.keep_s is None:
            continue  # it would only be started again
        if (due := place.idle_since + rest_s) > now:
            wake = min(wake, due)
        else:
            (sleep if place.spec.rests else stop)(place, "it was idle", out, "idle")
    return wake
