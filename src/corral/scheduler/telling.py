"""Why a start or a stop was decided, as data for the event log. Pure."""

from __future__ import annotations

from typing import Any

from corral.scheduler.expect import expected_wait_s, place_in_line
from corral.scheduler.messages import Sleep, Stop
from corral.scheduler.state import Phase, Place, Scheduling, Waiter
from corral.units import show_duration

_MAKING_ROOM = "making room for "


def of_start(state: Scheduling, unit: str) -> dict[str, Any]:
    """Who wants `unit`, in words; and how long it had to wait for others to end."""
    place = state.places.get(unit)
    if place is None:
        return {}
    swap = {"swap_s": round(place.swap_s, 3)} if place.swap_s >= 0.001 else {}
    waiting = sum(map(len, place.line.queues.values()))
    if waiting:
        return {"why": "a request asked for it" if waiting == 1 else f"{waiting} requests wait for it", **swap}
    if place.line.watchers:
        return {"why": "it was asked to be ready", **swap}
    if place.kept is not None:
        return {"why": "its schedule wants it now", **swap}
    return {"why": "it is the default model", **swap} if place.model == state.policy.default_model else swap


def of_lack(place: Place) -> dict[str, Any]:
    """The memory that a start of `place` waits for; empty where it waits for none."""
    return {"lacks": place.short_why} if place.short and not place.resident else {}


def of_wait(state: Scheduling, waiter: Waiter, now: float) -> tuple[str, dict[str, Any]]:
    """That a request has to wait, in words, and what there is to tell of that."""
    place, position = state.places[waiter.model], place_in_line(state, waiter)
    expected = expected_wait_s(state, place, now, position)
    facts = {"position": position, "expected_s": round(expected, 3)} | of_lack(place)
    until = f"about {show_duration(expected)}"
    text = f"a request for {waiter.model} waits as number {position}"
    return (f"{text} until there is memory: it {facts['lacks']}" if "lacks" in facts else f"{text}, {until}"), facts


def of_end(state: Scheduling, command: Stop | Sleep, now: float) -> tuple[str, dict[str, Any]]:
    """What is done to a unit, in a word, and what there is to tell of that."""
    rival = command.why.removeprefix(_MAKING_ROOM) if command.why.startswith(_MAKING_ROOM) else None
    facts = {"generation": command.generation, "why": command.why, "cause": command.cause}
    word = "stop" if isinstance(command, Stop) else "sleep"
    return word, facts | of_stop(state, command.model, rival, now)


def of_stop(state: Scheduling, unit: str, making_room_for: str | None, now: float) -> dict[str, Any]:
    """How long `unit` was idle; and what the one that it makes room for needs, and was free."""
    facts: dict[str, Any] = {}
    place = state.places.get(unit)
    if place is not None and not place.leases and place.phase in (Phase.READY, Phase.STOPPING) and place.idle_since:
        facts["idle_s"] = round(now - place.idle_since, 3)
    rival = state.places.get(making_room_for) if making_room_for is not None else None
    if rival is not None and rival.spec.footprint:
        facts["needs"] = dict(rival.spec.footprint)
        facts["free"] = {device: state.seen.free[device] for device in facts["needs"] if device in state.seen.free}
    return facts
