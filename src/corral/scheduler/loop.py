"""The scheduler's shell: posts events to `decide.step`, carries out its commands, hands out leases."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from types import TracebackType
from typing import Any

from corral import clock
from corral.engines.plan import Footprint
from corral.errors import Bug, CorralError
from corral.events import EventLog
from corral.scheduler import telling
from corral.scheduler.commanded import Units
from corral.scheduler.decide import give_back, grant_now, step
from corral.scheduler.expect import expected_wait_s
from corral.scheduler.hours import kept_now
from corral.scheduler.lease import Held, Lease
from corral.scheduler.messages import (
    Adopted,
    Asked,
    BecameReady,
    Closed,
    Command,
    Configured,
    Doubted,
    Drain,
    Ended,
    Event,
    Foretell,
    Grant,
    Lacks,
    Left,
    Look,
    Measured,
    MemorySeen,
    Mended,
    Paused,
    Plan,
    Planned,
    Reject,
    Scheduled,
    Sleep,
    Slept,
    Start,
    Stop,
    StopAsked,
    Ticked,
    Wake,
    WakeAt,
)
from corral.scheduler.state import Keep, Phase, Place, Policy, Scheduling, Spec

LOOK_S = 2.0
"""How long one look at the memory may take; after that, nothing is known of it."""
_HOURS_S = 20.0
"""How often schedules are held against the time of day."""
_END_KNOWN_S = 0.25
"""How long after it dropped a connection a process's end is waited for."""


class Scheduler:
    """One writer of one `Scheduling`. Lives on one event loop; tasks it starts belong to `group`."""

    def __init__(
        self,
        specs: Mapping[str, Spec],
        policy: Policy,
        *,
        units: Units,
        events: EventLog,
        group: asyncio.TaskGroup,
        queue_timeout_s: float,
        first_generations: Mapping[str, int] | None = None,
        look: Callable[[], Awaitable[MemorySeen]] | None = None,
    ) -> None:
        """`look` reads the devices' memory; without it, starts are judged by footprints and budgets alone."""
        self._state = Scheduling(policy, looks=look is not None, plans=True, busy_at=clock.monotonic())
        self._units, self._events, self._group = units, events, group
        self.queue_timeout_s = queue_timeout_s
        self.degraded: Callable[[str], str] = lambda unit: ""  # what a unit does without, for its leases
        self.on_idle: Callable[[str, int], None] | None = None  # told of a model whose last lease ended
        self._ids = itertools.count(1)
        self._at_once: dict[str, Lease] = {}  # the same for all of a unit's generation that need not wait
        self._waiting: dict[int, asyncio.Future[Grant]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0  # when that is, on `clock.monotonic`
        self._look = look
        self._let_go = False
        self._kept: dict[str, Keep] | None = None  # by schedule; None = they are not looked at yet
        self._hours: asyncio.TimerHandle | None = None
        self.configure(specs, policy, frozenset())
        for name, generation in (first_generations or {}).items():
            self.begin_at(name, generation)

    # What the gateway uses.

    def lease(
        self, model: str, *, deadline: float | None = None, key: str = "", keep_alive_s: float | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """See `scheduler.lease.Leases.lease`."""
        limit = clock.monotonic() + self.queue_timeout_s if deadline is None else deadline
        return _Held(self, model, limit, key, keep_alive_s)

    def try_lease(self, model: str) -> Held | None:
        """See `scheduler.lease.Leases.try_lease`."""
        waiter = next(self._ids)
        place = grant_now(self._state, waiter, model, clock.monotonic())
        if place is None:
            return None
        lease = self._at_once.get(place.name)
        if lease is None or lease.generation != place.generation:
            unit, endpoint = self._units.endpoint(place.name)
            lease = Lease(model, unit, place.generation, endpoint, degraded=self.degraded(place.name))
            self._at_once[place.name] = lease
        return _AtOnce(self, lease, place, waiter)

    def unit_gone(self, lease: Lease, why: str) -> None:
        """Notes that a unit dropped a connection. It gets no new work until its end, if that was it, is known."""
        place = _place_of(lease)
        self._post(Doubted(place, lease.generation))
        self._units.doubt(place, lease.generation)
        self._events.post("unit.dropped", f"{lease.unit}: {why}", model=lease.model, unit=lease.unit)

    def unit_ails(self, lease: Lease, said: str) -> None:
        """Has a unit replaced that says of itself that it has no memory or no GPU left. It gets no new work, and what
        it still answers may end, for as long as anybody has to wait for others."""
        if (why := self._units.ails(place := _place_of(lease), lease.generation, said)) is not None:
            within_s = min(self._state.policy.drain_s, self._state.policy.max_wait_s)
            self._post(StopAsked(place, why, anew=True, within_s=within_s, cause="ailing"))

    async def blameless(self, lease: Lease) -> bool:
        """See `scheduler.lease.Leases.blameless`."""
        return await self._units.blameless(_place_of(lease), lease.generation, _END_KNOWN_S)

    # What the control plane uses.

    async def ensure_ready(self, model: str, *, deadline: float | None = None, force: bool = False) -> None:
        """Returns once the unit is ready; holds nothing. Raises as `lease` does."""
        limit = clock.monotonic() + self.queue_timeout_s if deadline is None else deadline
        await self._ask(model, limit, lease=False, force=force)

    def stop_unit(self, model: str, why: str) -> None:
        """Asks for the stop of all of a model's units: running answers get the drain time, waiting requests an error.
        A replica's own name asks for that unit alone: whoever waits for its model goes on waiting."""
        if (place := self.place(model)) is not None and not place.first:
            self._post(StopAsked(model, why, anew=True, within_s=self._state.policy.drain_s))
        else:
            self._post(StopAsked(model, why))

    def renew_unit(self, unit: str, why: str) -> None:
        """Has one unit that lacks a GPU end as soon as it has nothing to do; its next request has it started anew."""
        self._post(StopAsked(unit, why, anew=True, cause="gpu"))

    def configure(self, specs: Mapping[str, Spec], policy: Policy, outdated: frozenset[str]) -> None:
        self._post(Configured(specs, policy, outdated))
        if self._kept is not None:
            self.keep_hours()

    def memory_seen(self, reading: MemorySeen) -> None:
        """Takes up a reading of the devices' memory that nobody asked for."""
        self._post(reading)

    def measured(self, model: str, footprint: Footprint, *, real: bool = True) -> None:
        """What `model` takes: seen in a load of it, or (not `real`) predicted where nothing is known yet."""
        load_s, mapped, asleep = footprint.load_s, footprint.mapped, footprint.asleep
        self._post(Measured(model, footprint.bytes_by_device, real, load_s, mapped, asleep))

    def planned(self, unit: str, footprint: Footprint) -> None:
        """What `unit` would take if it were started now. That may be less than what it took before: what is chosen for
        it, such as the length of its context, depends on the room there is."""
        place, sizes = self._state.places.get(unit), footprint.bytes_by_device
        if place is not None and sizes and not place.spec.takes(sizes, footprint.mapped, footprint.asleep):
            self._post(Measured(unit, sizes, True, None, footprint.mapped, footprint.asleep))

    def keep_hours(self) -> None:
        """Has schedules kept from now on: they are held against the time of day at once and every few seconds."""
        if self._hours is not None:
            self._hours.cancel()
            self._hours = None
        specs = {place.model: place.spec for place in self._state.places.values() if place.spec.schedule}
        self._kept = self._kept or {}
        if not (specs or self._kept) or self._state.closing:
            return
        here = datetime.fromtimestamp(clock.wall())
        kept = kept_now(specs, here.weekday(), here.hour * 60 + here.minute)
        if kept != self._kept:
            words = ", ".join(f"{model} ({keep})" for model, keep in kept.items()) or "nothing"
            self._events.post("scheduler.hours", f"schedules keep now: {words}")
            self._kept = kept
            self._post(Scheduled(kept))
        self._hours = asyncio.get_running_loop().call_later(_HOURS_S, self.keep_hours)

    def begin_at(self, model: str, generation: int) -> None:
        """Has a model that came later count on from an earlier daemon's generations. Nothing once it has one."""
        if (place := self._state.places.get(model)) is not None and place.generation == 0:
            place.generation = generation

    def adopt(self, model: str, generation: int) -> None:
        self._post(Adopted(model, generation))

    def close(self) -> None:
        """Refuses what waits and what comes; running leases go on."""
        self._post(Closed())
        for timer in (self._timer, self._hours):
            if timer is not None:
                timer.cancel()
        self._timer = self._hours = None

    def let_go(self) -> None:
        """As `close`; and the units are another server's from now on, so that nothing is done to them any more."""
        self._let_go = True
        self.close()

    def held(self) -> dict[str, int]:
        """Leases by model, of those that have any."""
        return dict(Counter(place.model for place in self._state.places.values() for _ in place.leases))

    @property
    def waiting(self) -> int:
        return len(self._state.waiters)

    @property
    def in_flight(self) -> int:
        return sum(len(place.leases) for place in self._state.places.values())

    @property
    def resident(self) -> int:
        return sum(place.resident for place in self._state.places.values())

    def place(self, model: str) -> Place | None:
        """The scheduler's own record of `model`, to read; advice only, it may change with the next event."""
        return self._state.places.get(model)

    def is_busy(self, model: str) -> bool:
        """Whether something has a lease of it."""
        return bool((place := self.place(model)) and place.leases)

    def expected_wait_s(self, model: str) -> float:
        place = self.place(model)
        return 0.0 if place is None else expected_wait_s(self._state, place, clock.monotonic())

    # What the supervisor reports (supervisor.unit.Listener).

    def unit_ready(self, model: str, generation: int) -> None:
        self._post(BecameReady(model, generation))

    def unit_slept(self, model: str, generation: int) -> None:
        self._post(Slept(model, generation))

    def pause(self, model: str, generation: int, on: bool) -> None:
        self._post(Paused(model, generation, on))

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self._post(Ended(model, generation, error, retry_at))

    # The loop itself.

    async def _ask(
        self,
        model: str,
        deadline: float,
        *,
        lease: bool,
        force: bool = False,
        key: str = "",
        keep_s: float | None = None,
    ) -> Grant:
        waiter, now = next(self._ids), clock.monotonic()
        place = self._state.places.get(model)
        if place is not None and place.error is not None and now < place.retry_at and await self._units.mended(model):
            self._events.post("unit.mended", f"{model} is tried again: its files have changed", model=model)
            self._post(Mended(model))
        asked = Asked(waiter, model, deadline, lease, force, key, keep_s)
        commands = step(self._state, asked, clock.monotonic())
        if len(commands) == 1 and type(granted := commands[0]) is Grant and granted.waiter == waiter:
            return granted  # the usual case: nobody has to wait
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = future
        try:
            self._obey(commands)
            if not future.done():
                self._waits(waiter)
            return await future
        except asyncio.CancelledError:
            # Granted and cancelled in one moment: the grant must be given back. It may have come after the future was
            # cancelled, and before this runs, so the books are asked and not the future.
            if future.done() and not future.cancelled():
                future.exception()  # seen
            if (unit := self._state.held_by(waiter)) is not None:
                self._returned(waiter, unit)
            else:
                self._post(Left(waiter))
            raise
        finally:
            self._waiting.pop(waiter, None)
            place = self._state.places.get(model)
            if place is None or (place.phase is Phase.ABSENT and not place.line):
                self._units.forgo(model)

    def _waits(self, waiter_id: int) -> None:
        """Tells that a request has to wait, and has prepared what may be."""
        waiter = self._state.waiters[waiter_id]
        place = self._state.places[waiter.model]
        if waiter.lease:
            text, facts = telling.of_wait(self._state, waiter, clock.monotonic())
            self._events.post("request.waits", text, model=waiter.model, **facts)
        if place.phase is Phase.ABSENT:
            self._units.expect(waiter.model, place.generation + 1)

    def _post(self, event: Event) -> None:
        self._obey(step(self._state, event, clock.monotonic()))

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            kind = type(command)
            if kind is Grant:
                if (future := self._waiting.get(command.waiter)) is not None and not future.done():  # type: ignore[union-attr]
                    future.set_result(command)  # type: ignore[arg-type]
            elif self._let_go and kind is not Reject:
                continue
            elif kind is WakeAt:
                self._wake_at(command.at)  # type: ignore[union-attr]
            elif kind is Look:
                self._group.create_task(self._look_now(), name="look at the memory")
            else:
                self._carry_out(command)  # type: ignore[arg-type]

    def _carry_out(self, command: Start | Stop | Sleep | Wake | Drain | Reject | Lacks | Plan | Foretell) -> None:
        match command:
            case Reject(waiter, error):
                if (future := self._waiting.get(waiter)) is not None and not future.done():
                    future.set_exception(error)
                self._events.post("request.refused", error.message, model=error.details.get("model"), code=error.code)
            case Start(model, generation, although):
                facts = telling.of_start(self._state, model)
                facts["generation"] = generation
                self._events.post("scheduler.start", f"start {model}{although}", model=model, **facts)
                self._spawn(model, generation, self._units.start(model, generation))
            case Wake(model, generation):
                self._events.post("scheduler.wake", f"wake {model}", model=model, generation=generation)
                self._spawn(model, generation, self._units.wake(model, generation))
            case Stop(model, generation, why) | Sleep(model, generation, why):
                word, facts = telling.of_end(self._state, command, clock.monotonic())
                self._events.post(f"scheduler.{word}", f"{word} {model}: {why}", model=model, **facts)
                act = self._units.stop if word == "stop" else self._units.sleep
                self._spawn(model, generation, act(model, generation, why))
            case Drain(model, generation, why):
                self._units.drain(model, generation, why)
            case Lacks(model, why, short):
                text = f"{model} waits for memory: it {why}"
                self._events.post("unit.waits", text, model=model, lacks=why, missing=dict(short))
            case Plan(model, generation):
                self._spawn(model, generation, self._check(model, generation))
            case Foretell(model):
                self._units.foretell(model)

    def _spawn(self, model: str, generation: int, work: Coroutine[Any, Any, None]) -> None:
        self._group.create_task(self._carried_out(model, generation, work), name=f"unit {model}.{generation}")

    async def _check(self, model: str, generation: int) -> None:
        if await self._units.check(model, generation):
            self._post(Planned(model, generation))

    async def _carried_out(self, model: str, generation: int, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a task's end becomes an event: one bug takes one unit, not all
            bug = error if isinstance(error, CorralError) else Bug(f"{type(error).__name__}: {error}", model=model)
            self._events.post("bug", str(bug), model=model, **bug.details)
            self._post(Ended(model, generation, bug, clock.monotonic() + 1.0))

    async def _look_now(self) -> None:
        """One reading, whatever happens to it: decisions wait for its end."""
        began = clock.monotonic()
        seen = MemorySeen({}, {}, began)
        try:
            if self._look is not None:
                async with asyncio.timeout(LOOK_S):
                    seen = await self._look()
        except Exception as error:  # noqa: BLE001 - a device that cannot be read holds nobody up
            why = f"the memory could not be read: {type(error).__name__}: {error}"
            self._events.post("scheduler.blind", why)
        self._post(seen)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            if self._wakes_at <= at:
                return
            self._timer.cancel()
        self._wakes_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._post(Ticked())

    def _returned(self, waiter: int, model: str) -> None:
        if (place := self._state.places.get(model)) is not None:
            self._given_back(waiter, place)

    def _given_back(self, waiter: int, place: Place) -> None:
        if commands := give_back(self._state, waiter, place, clock.monotonic()):
            self._obey(commands)
        if not place.leases and self.on_idle is not None and self._state.places.get(place.name) is place:
            self.on_idle(place.name, place.generation)


def _place_of(lease: Lease) -> str:
    return lease.unit.rpartition(".")[0] or lease.model


class _AtOnce:
    """One that nobody had to wait for."""

    __slots__ = ("_place", "_scheduler", "_waiter", "lease")

    def __init__(self, scheduler: Scheduler, lease: Lease, place: Place, waiter: int) -> None:
        self._scheduler, self.lease, self._place, self._waiter = scheduler, lease, place, waiter

    def give_back(self) -> None:
        self._scheduler._given_back(self._waiter, self._place)


class _Held(AbstractAsyncContextManager[Lease]):
    """One lease from asking to giving back."""

    __slots__ = ("_deadline", "_keep_s", "_key", "_model", "_scheduler", "_unit", "_waiter")

    def __init__(self, scheduler: Scheduler, model: str, deadline: float, key: str, keep_s: float | None) -> None:
        self._scheduler, self._model, self._deadline, self._key = scheduler, model, deadline, key
        self._keep_s, self._waiter, self._unit = keep_s, 0, model

    async def __aenter__(self) -> Lease:
        grant = await self._scheduler._ask(self._model, self._deadline, lease=True, key=self._key, keep_s=self._keep_s)
        self._waiter, self._unit = grant.waiter, grant.model
        unit, endpoint = self._scheduler._units.endpoint(self._unit)
        waits = (grant.queued_s * 1000, grant.load_s * 1000, grant.swap_s * 1000, grant.position)
        degraded = self._scheduler.degraded(self._unit)
        return Lease(self._model, unit, grant.generation, endpoint, *waits, degraded, grant.lacked)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler._returned(self._waiter, self._unit)
