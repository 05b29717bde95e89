"""What would have to go so that a model can start. Pure.

Rules that hold whatever the policy: a busy, starting or stopping unit is never chosen, a pinned one neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral.scheduler.state import Phase, Place, Policy, Scheduling, Spec


@dataclass(frozen=True, slots=True)
class Room:
    """`evict` must be stopped first; `blocked_by` cannot be stopped now; `impossible` says why it never fits."""

    evict: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()
    impossible: str = ""

    @property
    def free(self) -> bool:
        return not (self.evict or self.blocked_by or self.impossible)


def make_room(state: Scheduling, spec: Spec, claims: Iterable[Spec] = ()) -> Room:
    """How to make room for `spec` beside what is resident and what `claims` have been promised.

    Cheapest first: lowest priority, then longest idle. Claims are never displaced.
    """
    policy = state.policy
    if why := _never(state, spec):
        return Room(impossible=why)
    others = [p for p in state.places.values() if p.resident and p.spec.name != spec.name]
    claimed = [claim for claim in claims if claim.name != spec.name]
    standing = {place.spec.name for place in others}
    # A claim whose unit still stands (it is being stopped to be started anew) is counted once.
    ahead = [claim for claim in claimed if claim.name not in standing]

    must = [place for place in others if conflict(spec, place.spec)]
    stay = [place for place in others if not conflict(spec, place.spec)]
    stay.sort(key=_cost)
    gone: list[Place] = list(must)
    while not fits(policy, [spec, *ahead, *(place.spec for place in stay)]):
        movable = next((place for place in stay if _movable(place)), None)
        if movable is None:
            blockers = [place.spec.name for place in stay if not place.spec.pin] or [c.name for c in ahead]
            return Room(blocked_by=tuple(blockers or [place.spec.name for place in stay]))
        stay.remove(movable)
        gone.append(movable)
    held = [claim.name for claim in ahead if conflict(spec, claim)]
    held += [place.spec.name for place in gone if not _movable(place)]
    if held:
        return Room(blocked_by=tuple(held))
    return Room(evict=tuple(place.spec.name for place in gone))


def conflict(one: Spec, other: Spec) -> bool:
    """Whether the two may never be resident together, whatever the memory."""
    return one.exclusive or other.exclusive or (one.group is not None and one.group == other.group)


def fits(policy: Policy, specs: Iterable[Spec]) -> bool:
    """Whether `specs` together keep within the count and every device's budget."""
    count, used = 0, dict.fromkeys(policy.budgets, 0)
    for spec in specs:
        count += 1
        for device, wanted in spec.footprint.items():
            if device in used:
                used[device] += wanted
    if policy.max_active is not None and count > policy.max_active:
        return False
    return all(used[device] <= budget for device, budget in policy.budgets.items())


def _never(state: Scheduling, spec: Spec) -> str:
    """Why `spec` cannot run even with everything else that may go gone; empty when it can."""
    policy = state.policy
    for device, budget in policy.budgets.items():
        if (wanted := spec.footprint.get(device, 0)) > budget:
            return f"it needs {wanted} bytes on {device}, the budget there is {budget}"
    pinned = [p.spec for p in state.places.values() if p.resident and p.spec.pin and p.spec.name != spec.name]
    for each in pinned:
        if conflict(spec, each):
            return f"{each.name} is pinned, and the two may not run together"
    if pinned and not fits(policy, [spec, *pinned]):
        return f"there is no room beside what is pinned ({', '.join(each.name for each in pinned)})"
    return ""


def _movable(place: Place) -> bool:
    return place.phase is Phase.READY and not place.leases and not place.spec.pin


def _cost(place: Place) -> tuple[int, float]:
    return place.spec.priority, place.idle_since
