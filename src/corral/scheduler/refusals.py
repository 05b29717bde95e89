"""Why a request is not granted: each refusal in words, with what to do next. Pure."""

from __future__ import annotations

from typing import Any

from corral.errors import CannotFit, CorralError, DeadlinePassed, QueueFull, Stopping
from corral.scheduler.expect import expected_rest_s, expected_wait_s, place_in_line
from corral.scheduler.state import Phase, Place, Scheduling, Waiter
from corral.units import show_duration


def closing() -> Stopping:
    return Stopping("Corral is shutting down", hint="try again once it is back")


def stopped(model: str, why: str) -> Stopping:
    return Stopping(f"{model} was stopped while the request waited: {why}", hint="ask again to start it", model=model)


def queue_full(state: Scheduling, place: Place, now: float) -> QueueFull:
    position = len(state.waiters) + 1
    expected = expected_wait_s(state, place, now)
    return QueueFull(
        f"{len(state.waiters)} requests wait already, and no more may (max_queue)",
        hint="try again after the seconds in Retry-After, or raise max_queue",
        model=place.model,
        queue_position=position,
        expected_wait_s=round(expected, 3),
        retry_after_s=min(600.0, max(1.0, expected)),
    )


def too_late(state: Scheduling, waiter: Waiter, now: float) -> CorralError:
    """The deadline passed; where memory that others hold was the reason, it could not fit."""
    place = state.places[waiter.model]
    waited = show_duration(now - waiter.asked_at)
    position = place_in_line(state, waiter)
    expected = expected_wait_s(state, place, now, position)
    details: dict[str, Any] = {
        "model": waiter.model,
        "queue_position": position,
        "expected_wait_s": round(expected, 3),
        "retry_after_s": min(600.0, max(1.0, expected)),
    }
    short = next((unit for unit in state.units_of(place) if unit.short), None)
    if short is not None and not short.resident:
        return CannotFit(
            f"{waiter.model} found no room within {waited}: it {short.short_why}",
            hint=_what_frees(state, short),
            **details,
            waited_for=short.short_why,
        )
    if place.resident and place.lacked and waiter.asked_at < place.started_at:
        details["waited_for"] = place.lacked
    doing = "it is still loading" if place.phase is Phase.STARTING else f"its unit is {place.phase}"
    if place.phase is Phase.STARTING:
        doing += f" (about {show_duration(expected_rest_s(place, now))} more)"
    if place.phase is Phase.READY:
        doing = "its unit is busy" if place.leases else "its unit makes room for another model"
    return DeadlinePassed(
        f"no turn on {waiter.model} within {waited}: {doing}, and the request was number {position} in line",
        hint="`corral ps` shows what is busy; timeouts.queue sets how long a request may wait",
        **details,
    )


def _what_frees(state: Scheduling, unit: Place) -> str:
    """What to do about memory that others hold."""
    spare = all(missing <= state.policy.headroom_on(device) for device, missing in unit.short.items())
    lower = "`context` or `headroom`" if spare else "`context`"
    return f"end other programs that hold memory there, lower {lower}, or try again later"


def cannot_fit(place: Place, why: str, hint: str) -> CannotFit:
    return CannotFit(f"{place.model} cannot run here: {why}", hint=hint, model=place.model)


def again(error: CorralError, retry_after_s: float) -> CorralError:
    """The same error, now with the time after which another try is made."""
    known = {key: value for key, value in error.details.items() if key != "retry_after_s"}
    return type(error)(error.message, hint=error.hint, **known, retry_after_s=retry_after_s)
