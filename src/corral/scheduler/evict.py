"""What would have to go so that a model can start. Pure.

Rules that hold whatever the policy: a busy, starting or stopping unit is never chosen, a pinned one neither.

Among the rest, the order is: what is stopping anyway, then lower priority, then the least regret. A unit's regret is
the time its reload takes, times the chance that it is needed again, which falls with the time it has been idle:
`load_s * 60 / (60 + idle_s)`. Units are compared by regret for what they free; one that suffices is preferred to
several that cost as much, and whoever turns out not to be needed stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType

from corral.lazy_dataclass import dataclass
from corral.scheduler.memory import budget, firm, is_budgeted
from corral.scheduler.state import INFINITY, Phase, Place, Policy, Scheduling, Spec
from corral.units import show_bytes

LOADED_BYTES_PER_S = 1 << 30
"""How fast a model that was never loaded is expected to load."""

_LOADS_KEPT = 4.0
_TAU_S = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Room that was promised: to `place`, once what `goes` is gone."""

    place: Place
    goes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Room:
    """`evict` must be stopped and `waits_for` gone first; `blocked_by` cannot be stopped now; `impossible` says why it
    never fits, and `hint` what to do about that. `goes` is all of what has to go, by plan."""

    evict: tuple[str, ...] = ()
    sleep: frozenset[str] = frozenset()  # those of `evict` that need only sleep for it
    waits_for: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()
    impossible: str = ""
    hint: str = ""
    goes: frozenset[str] = field(default_factory=frozenset)
    short: bool = False  # nothing that may go would free enough
    again_at: float = INFINITY  # when one of `blocked_by` may be stopped after all, by time alone

    @property
    def free(self) -> bool:
        return not (self.evict or self.waits_for or self.blocked_by or self.impossible or self.short)


@dataclass(frozen=True, slots=True)
class _Need:
    """Something of which there is too much: on a device or of units, now or once claims are fulfilled."""

    missing: float
    device: str | None  # None = the number of units
    gone: frozenset[str] = frozenset()  # units whose going does not help


def make_room(
    state: Scheduling,
    place: Place,
    claims: Sequence[Claim] = (),
    *,
    now: float = 0.0,
    asked_at: float = INFINITY,
    short: Mapping[str, int] = MappingProxyType({}),
) -> Room:
    """How to make room for `place` beside what is resident, without taking what `claims` have been promised.

    `asked_at`: since when somebody waits for it. `short`: memory that must be freed whatever the books say, by device.
    """
    if (never := _never(state, place)) is not None:
        return Room(impossible=never[0], hint=never[1])
    spec = place.spec
    others = [p for p in state.places.values() if p.resident and p is not place]
    must = [p for p in others if p.line is not place.line and conflict(spec, p.spec)]
    rest = [p for p in others if p not in must]
    ahead = [claim.place for claim in claims if claim.place is not place]
    promised = {claim.place.name for claim in claims}
    able = [p for p in rest if not _stays(p) and p.line is not place.line]
    times = {p.name: _movable_at(state, p, asked_at, promised) for p in others if p.phase is not Phase.STOPPING}
    needs = [_Need(missing, device) for device, missing in short.items()] + _needs(state, place, rest, claims)
    chosen = _choose(able, needs, times, now)
    if chosen is None:
        names = [p.name for p in ahead if not p.resident] + [p.name for p in able]
        return Room(blocked_by=tuple(names), short=True)
    goes = frozenset(p.name for p in must + chosen)
    held = [p.name for p in ahead if not p.resident and p.line is not place.line and conflict(spec, p.spec)]
    later = {name: at for name, at in times.items() if name in goes and at > now}
    if held or later:
        return Room(blocked_by=(*held, *later), goes=goes, again_at=min(later.values(), default=INFINITY))
    waits_for = tuple(p.name for p in must + chosen if p.phase is Phase.STOPPING)
    evict = tuple(name for name in times if name in goes)
    return Room(evict=evict, sleep=_may_sleep(chosen, needs), waits_for=waits_for, goes=goes)


def _may_sleep(chosen: Sequence[Place], needs: Sequence[_Need]) -> frozenset[str]:
    """Which of `chosen` need not end, because what they give back asleep is enough too."""
    frees = {p.name: [_freed(p, need) for need in needs] for p in chosen}
    found = set()
    for p in chosen:
        if not p.spec.sleeps or not p.spec.asleep or p.phase is not Phase.READY:
            continue
        before = frees[p.name]
        frees[p.name] = [_freed_asleep(p, need) for need in needs]
        if all(sum(each[i] for each in frees.values()) >= need.missing for i, need in enumerate(needs)):
            found.add(p.name)
        else:
            frees[p.name] = before
    return frozenset(found)


def _freed_asleep(place: Place, need: _Need) -> float:
    if need.device is None or place.name in need.gone:
        return _freed(place, need)
    return float(place.spec.footprint.get(need.device, 0) - place.spec.asleep.get(need.device, 0))


def conflict(one: Spec, other: Spec) -> bool:
    """Whether the two may never be resident together, whatever the memory."""
    if one.elsewhere or other.elsewhere:
        return False
    return one.exclusive or other.exclusive or (one.group is not None and one.group == other.group)


def fits(policy: Policy, specs: Iterable[Spec]) -> bool:
    """Whether `specs` together keep within the count and every device's configured budget."""
    count, used = 0, dict.fromkeys(policy.budgets, 0)
    for spec in specs:
        count += not spec.elsewhere
        for device, wanted in spec.footprint.items():
            if device in used:
                used[device] += wanted
    if policy.max_active is not None and count > policy.max_active:
        return False
    return all(used[device] <= budget for device, budget in policy.budgets.items())


def reload_s(place: Place) -> float:
    """How long a start of it takes: as it took before, else by its size."""
    if place.usual_load_s > 0:
        return place.usual_load_s
    return max(0.1, sum(place.spec.footprint.values()) / LOADED_BYTES_PER_S)


def _needs(state: Scheduling, place: Place, rest: list[Place], claims: Sequence[Claim]) -> list[_Need]:
    """What is missing beside everything that stands now, and beside what will stand once claims are fulfilled."""
    spec, most = place.spec, state.policy.max_active
    ahead = [claim.place for claim in claims if claim.place is not place and not claim.place.resident]
    needs = list[_Need]()
    worlds = [(rest, frozenset[str]())]
    if ahead:
        leaving = frozenset(name for claim in claims for name in claim.goes)
        back = frozenset(claim.place.name for claim in claims)  # those that stop will stand again
        worlds.append(([p for p in rest if p.name not in leaving] + ahead, leaving | back))
    for world, gone in worlds:
        count = sum(_counts(p) for p in world)
        if most is not None and count >= most and not spec.elsewhere:
            needs.append(_Need(count + 1 - most, None, gone))
        for device, wanted in spec.footprint.items():
            if wanted <= 0 or (limit := budget(state, device)) == INFINITY:
                continue
            least = firm(state, spec, device)
            if least < wanted:  # the whole of it where that is possible at all, else as much as there can be
                fixed = sum(p.holds.get(device, 0) for p in world if _stays(p))
                wanted = max(least, min(wanted, int(limit) - fixed))
            if (over := wanted + sum(p.holds.get(device, 0) for p in world) - limit) > 0:
                needs.append(_Need(over, device, gone))
    return needs


def _choose(able: list[Place], needs: list[_Need], times: Mapping[str, float], now: float) -> list[Place] | None:
    """Whose going frees what is missing, at the least cost; None when all of them together do not."""
    if not needs:
        return []
    ranks = {p.name: _rank(p, times.get(p.name, now) <= now) for p in able}
    frees = {p.name: [_freed(p, need) for need in needs] for p in able}

    def suffices(some: Sequence[Place]) -> bool:
        return all(sum(frees[p.name][i] for p in some) >= need.missing for i, need in enumerate(needs))

    def share(p: Place) -> float:
        return sum(min(1.0, freed / need.missing) for freed, need in zip(frees[p.name], needs, strict=True))

    for rank in sorted(set(ranks.values())):
        pool = [p for p in able if ranks[p.name] <= rank and share(p) > 0]
        if not suffices(pool):
            continue
        cost = {p.name: _regret(p, now) for p in pool}
        pool.sort(key=lambda p: (ranks[p.name], cost[p.name] / share(p), p.idle_since, p.name))
        several: list[Place] = []
        for p in pool:
            if suffices(several):
                break
            several.append(p)
        for p in sorted(several, key=lambda p: (ranks[p.name], cost[p.name]), reverse=True):
            if suffices(without := [each for each in several if each is not p]):
                several = without
        alone = min(
            (p for p in pool if suffices([p])), key=lambda p: (cost[p.name], p.idle_since, p.name), default=None
        )
        if alone is not None and cost[alone.name] <= sum(cost[p.name] for p in several):
            return [alone]
        return several
    return None


def _freed(place: Place, need: _Need) -> float:
    if place.name in need.gone:
        return 0.0
    if need.device is None:
        return float(_counts(place))
    return float(place.holds.get(need.device, 0))


def _counts(place: Place) -> bool:
    """Whether it is one of those of which there may be `max_active`."""
    return place.phase is not Phase.SLEEPING and not place.spec.elsewhere


def _rank(place: Place, movable: bool) -> tuple[int, int]:
    """What goes anyway, before what may go, before what has to end something first; then by priority."""
    if place.phase is Phase.STOPPING:
        return 0, 0
    return (1 if movable else 2), place.spec.priority


def _regret(place: Place, now: float) -> float:
    if place.phase is Phase.STOPPING:
        return 0.0
    idle_s = 0.0 if place.leases else max(0.0, now - place.idle_since)
    return reload_s(place) * _TAU_S / (_TAU_S + idle_s)


def _never(state: Scheduling, place: Place) -> tuple[str, str] | None:
    """Why `place` cannot run even with everything else that may go gone, and what to do about it; None when it can."""
    spec, policy = place.spec, state.policy
    fixed = [p for p in state.places.values() if p.resident and _stays(p) and p is not place]
    for each in fixed:
        if each.line is not place.line and conflict(spec, each.spec):
            return f"{each.name} is pinned, and the two may not run together", f"stop or unpin {each.name}"
    names = ", ".join(each.name for each in fixed)
    for device, wanted in spec.footprint.items():
        least, limit = firm(state, spec, device), budget(state, device)
        if least > limit:
            may = f"it needs {show_bytes(wanted)} on {device}, and {show_bytes(int(limit))} may be used there"
            return f"{may} ({_bound(state, device)})", _smaller(state, device, least)
        if least > 0 and least + sum(p.holds.get(device, 0) for p in fixed) > limit:
            why = f"there is no room on {device} beside what is pinned ({names})"
            return why, f"stop or unpin a model, or {_smaller(state, device, least)}"
    counted = sum(not each.spec.elsewhere for each in fixed)
    if counted and (most := policy.max_active) is not None and counted + 1 > most and not spec.elsewhere:
        why = f"no more than {most} may be loaded at once (max_active), and so many are pinned ({names})"
        return why, "raise `max_active`, or stop or unpin a model"
    return None


def _bound(state: Scheduling, device: str) -> str:
    """What bounds the use of `device`."""
    if is_budgeted(state, device):
        return "its budget under `memory`"
    whole, alone = show_bytes(state.seen.total.get(device, 0)), state.policy.headroom_on(device)
    return f"all of its {whole} but the headroom of {show_bytes(alone)}" if alone else f"all of its {whole}"


def _smaller(state: Scheduling, device: str, least: int) -> str:
    """How it may come to need no more than there may be used of `device`."""
    if is_budgeted(state, device):
        return f"lower `context`, or raise the budget of {device} under `memory`"
    if least <= state.seen.total.get(device, 0):
        return "lower `context`, take a smaller quantization, or lower `headroom`"
    return "lower `context`, or take a smaller model or quantization"


def _stays(place: Place) -> bool:
    """Whether it is pinned, and not on its way out for another reason."""
    return place.pinned and place.phase is not Phase.STOPPING and not place.draining


def residency_s(state: Scheduling, place: Place) -> float:
    """How long a unit that is contended serves at least: no more than four times what its load took."""
    return min(state.policy.min_residency_s, _LOADS_KEPT * place.load_s)


def _movable_at(state: Scheduling, place: Place, asked_at: float, promised: Collection[str]) -> float:
    """From when on it may be stopped for a request that waits since `asked_at`.

    One that sleeps may be, but for those whose turn is before (`promised`): that somebody waits for it who comes later
    is no reason, or the two would wait for each other. A unit just loaded stays for a moment where that request came
    while it loaded or worked: otherwise two clients would have their models swapped with every request. A request that
    finds it idle does not wait.
    """
    if place.phase is Phase.SLEEPING:
        return INFINITY if place.name in promised else -INFINITY
    if place.phase is not Phase.READY or place.leases:
        return INFINITY
    if asked_at >= place.idle_since:
        return -INFINITY
    return min(place.ready_at + residency_s(state, place), asked_at + state.policy.max_wait_s)
