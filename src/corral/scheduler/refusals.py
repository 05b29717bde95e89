"""Why a request is not granted: each refusal in words, with what to do next. Pure."""

from __future__ import annotations

from corral.errors import CannotFit, CorralError, DeadlinePassed, QueueFull, Stopping
from corral.scheduler.state import Phase, Place, Scheduling, Spec, Waiter


def closing() -> Stopping:
    return Stopping("Corral is shutting down", hint="try again once it is back")


def stopped(model: str, why: str) -> Stopping:
    return Stopping(f"{model} was stopped while the request waited: {why}", hint="ask again to start it", model=model)


def expected_wait_s(state: Scheduling, place: Place) -> float:
    """A rough expectation for a request that joins `place`'s queue now; for Retry-After and `ps`."""
    ahead = len(place.waiting) + len(place.leases)
    return place.mean_hold_s * ahead / place.spec.slots + (0.0 if place.phase is Phase.READY else place.load_s)


def queue_full(state: Scheduling, place: Place) -> QueueFull:
    position = len(state.waiters) + 1
    return QueueFull(
        f"{len(state.waiters)} requests wait already, and no more may (max_queue)",
        hint="try again after the seconds in Retry-After, or raise max_queue",
        model=place.spec.name,
        queue_position=position,
        retry_after_s=min(600.0, max(1.0, expected_wait_s(state, place))),
    )


def too_late(state: Scheduling, waiter: Waiter, now: float) -> DeadlinePassed:
    place = state.places[waiter.model]
    waited = now - waiter.asked_at
    doing = "it is still loading" if place.phase is Phase.STARTING else f"its unit is {place.phase}"
    return DeadlinePassed(
        f"no turn on {waiter.model} within {waited:.1f} s: {doing}",
        hint="`corral ps` shows what is busy; timeouts.queue sets how long a request may wait",
        model=waiter.model,
        retry_after_s=min(600.0, max(1.0, expected_wait_s(state, place))),
    )


def cannot_fit(spec: Spec, why: str) -> CannotFit:
    return CannotFit(
        f"{spec.name} cannot run here: {why}",
        hint="stop or unpin a model, lower `context`, or raise the budget under `memory`",
        model=spec.name,
    )


def again(error: CorralError, retry_after_s: float) -> CorralError:
    """The same error, now with the time after which another try is made."""
    known = {key: value for key, value in error.details.items() if key != "retry_after_s"}
    return type(error)(error.message, hint=error.hint, **known, retry_after_s=retry_after_s)
