"""Whether the memory for a start is really there, by readings of the devices and not by what should be free. Pure.

A reading that shows too little counts when it began after the last unit on the device had ended. What is not there yet
may still be on its way back: it is looked for again, in growing intervals; only then is it taken for somebody else's.
"""

from __future__ import annotations

from collections.abc import Mapping

from corral.scheduler.messages import Command, Look, MemorySeen
from corral.scheduler.state import INFINITY, Phase, Place, Scheduling, Spec
from corral.units import show_bytes

FRESH_S = 3.0
"""An older reading is made again before a start: others use the memory too."""

CPU = "cpu"

GRACE_S = 5.0
"""How long memory may take to come back after a unit's end."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5
"""Between two looks for memory that is not there."""


def budget(state: Scheduling, device: str) -> float:
    """What all units together may take on `device`; infinite when nobody says."""
    found = state.policy.budget_on(device, state.seen.total.get(device))
    return INFINITY if found is None else found


def is_budgeted(state: Scheduling, device: str) -> bool:
    """Whether it is a configured budget that says how much of `device` may be used."""
    return state.policy.budgets.get(device, INFINITY) <= budget(state, device) < INFINITY


def firm(state: Scheduling, spec: Spec, device: str) -> int:
    """What of `spec` must be in memory on `device`. The rest of it may be read again from its file, slowly, as any
    mapped file is; but not against a budget, which is somebody's word."""
    wanted = spec.footprint.get(device, 0)
    return wanted if device != CPU or device in state.policy.budgets else max(0, wanted - spec.mapped)


def suffices_mapped(state: Scheduling, place: Place) -> bool:
    """Whether all that `place` is short of could stay in its mapped file."""
    spec = place.spec
    return all(size <= spec.footprint[device] - firm(state, spec, device) for device, size in place.short.items())


def see(state: Scheduling, event: MemorySeen) -> None:
    """Takes up a reading."""
    seen = state.seen
    seen.looking = False
    if event.at < seen.at:
        return
    seen.free, seen.taken, seen.at = event.free, event.taken, event.at
    seen.total = {**seen.total, **event.total}
    seen.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * seen.pause_s))


def freed(state: Scheduling, place: Place, now: float) -> None:
    """Notes that the unit's memory should be free from now on."""
    for device in place.spec.footprint or state.seen.total:
        state.seen.freed_at[device] = now
    state.seen.pause_s = 0.0


def confirmed(state: Scheduling, place: Place, now: float, out: list[Command]) -> tuple[bool, float]:
    """Whether a start of `place` may take its memory now, and if not, when to ask again (infinite: it is looked at).

    Sets `place.short` when others hold what it lacks.
    """
    seen, footprint = state.seen, place.spec.footprint
    if not state.looks or not footprint:
        return True, INFINITY
    since = max(seen.freed_at.get(device, -INFINITY) for device in footprint)
    if seen.at < since:
        place.short = {}  # that was before something ended
    if now - seen.at <= FRESH_S:
        short = lacking(state, place.spec, place.holds if place.phase is Phase.SLEEPING else None)
        if not short:
            place.short = {}
            return True, INFINITY  # an older reading only knows of less
        if seen.at >= since:
            place.short = {}
            if now - since >= GRACE_S:
                place.short, place.short_why = short, _in_words(state, place.spec, short)
            due = seen.at + max(FIRST_PAUSE_S, seen.pause_s)
            if now < due:
                return False, due
    look(state, out)
    return False, INFINITY


def foresee(state: Scheduling, place: Place, now: float, out: list[Command]) -> None:
    """Looks already while something ends for `place`: where there is enough without its memory, nothing more is waited
    for."""
    if state.looks and place.spec.footprint and now - state.seen.at > FRESH_S / 2:
        look(state, out)


def look(state: Scheduling, out: list[Command]) -> None:
    if not state.seen.looking:
        state.seen.looking = True
        out.append(Look())


def lacking(state: Scheduling, spec: Spec, held: Mapping[str, int] | None = None) -> dict[str, int]:
    """What `spec` needs beyond what is free and `held` already, by device; a device that was not read lacks nothing."""
    found = {}
    for device, whole in spec.footprint.items():
        free = state.seen.free.get(device)
        wanted = whole - (held or {}).get(device, 0)
        if free is None or wanted <= 0:
            continue
        left = free - state.policy.headroom_on(device) - pending(state, device)
        if wanted > left:
            found[device] = wanted - left
    return found


def pending(state: Scheduling, device: str) -> int:
    """What units had not taken yet when the memory was read, although it is theirs."""
    seen, found = state.seen, 0
    for place in state.places.values():
        if place.phase is not Phase.STARTING and place.phase is not Phase.READY:
            continue
        if (wanted := place.spec.footprint.get(device, 0)) <= 0:
            continue
        if (taken := seen.taken.get(place.name)) is not None and place.started_at <= seen.at:
            found += max(0, wanted - taken.get(device, 0))
        elif place.phase is Phase.STARTING or place.ready_at > seen.at:
            found += wanted
    return found


def _in_words(state: Scheduling, spec: Spec, short: dict[str, int]) -> str:
    words = []
    for device in short:
        free, total = state.seen.free[device], state.seen.total.get(device)
        ours = sum(p.holds.get(device, 0) for p in state.places.values() if p.resident)
        others = "" if total is None else f", {show_bytes(max(0, total - free - ours))} used by others"
        wanted, kept = spec.footprint[device], ""
        if wanted <= free:  # else it need not be said why that is too little
            alone, ahead = state.policy.headroom_on(device), pending(state, device)
            kept = f" of which {show_bytes(alone)} stay free (headroom)" if alone else ""
            kept += f"{' and' if kept else ' of which'} {show_bytes(ahead)} are loaded models'" if ahead else ""
        words.append(f"needs {show_bytes(wanted)} on {device}, {show_bytes(free)} free{kept}{others}")
    return "; ".join(words)
