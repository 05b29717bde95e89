"""The scheduler's shell: posts events to `decide.step`, carries out its commands, hands out leases."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol

from corral import clock
from corral.engines.plan import Endpoint
from corral.errors import Bug, CorralError
from corral.events import EventLog
from corral.scheduler.decide import step
from corral.scheduler.lease import Lease
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
    Grant,
    Left,
    Reject,
    Returned,
    Start,
    Stop,
    StopAsked,
    Ticked,
    WakeAt,
)
from corral.scheduler.refusals import expected_wait_s
from corral.scheduler.state import Phase, Place, Policy, Scheduling, Spec


class Units(Protocol):
    """What the scheduler needs of the supervisor."""

    async def start(self, model: str, generation: int) -> None:
        """Reports through `Scheduler.unit_ready` or `unit_ended`."""
        ...

    async def stop(self, model: str, generation: int, why: str) -> None: ...

    def drain(self, model: str, generation: int, why: str) -> None: ...

    def expect(self, model: str, generation: int) -> None:
        """A start of that model has to wait for something: what can be done for it already may be done."""
        ...

    def forgo(self, model: str) -> None:
        """Nobody waits for that model any more."""
        ...

    def endpoint(self, model: str) -> tuple[str, Endpoint]:
        """The newest generation's unit id and where it listens."""
        ...


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
    ) -> None:
        self._state = Scheduling(policy, {name: Place(spec) for name, spec in specs.items()})
        for name, generation in (first_generations or {}).items():
            if (place := self._state.places.get(name)) is not None:
                place.generation = generation
        self._units, self._events, self._group = units, events, group
        self.queue_timeout_s = queue_timeout_s
        self.on_idle: Callable[[str, int], None] | None = None  # told of a model whose last lease ended
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Grant]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0  # when that is, on `clock.monotonic`

    # What the gateway uses.

    def lease(self, model: str, *, deadline: float | None = None) -> AbstractAsyncContextManager[Lease]:
        """See `scheduler.lease.Leases.lease`."""
        return _Held(self, model, clock.monotonic() + self.queue_timeout_s if deadline is None else deadline)

    def unit_gone(self, lease: Lease, why: str) -> None:
        """Notes that a unit dropped a connection. It gets no new work until the supervisor, which is told of its
        process's end at once, has had time to say so."""
        self._post(Doubted(lease.model, lease.generation))
        self._events.post("unit.dropped", f"{lease.unit}: {why}", model=lease.model, unit=lease.unit)

    # What the control plane uses.

    async def ensure_ready(self, model: str, *, deadline: float | None = None, force: bool = False) -> None:
        """Returns once the unit is ready; holds nothing. Raises as `lease` does."""
        limit = clock.monotonic() + self.queue_timeout_s if deadline is None else deadline
        await self._ask(model, limit, lease=False, force=force)

    def stop_unit(self, model: str, why: str) -> None:
        """Asks for the unit's stop: running answers get the drain time, waiting requests an error."""
        self._post(StopAsked(model, why))

    def configure(self, specs: Mapping[str, Spec], policy: Policy, outdated: frozenset[str]) -> None:
        self._post(Configured(specs, policy, outdated))

    def begin_at(self, model: str, generation: int) -> None:
        """Has a model that came later count on from an earlier daemon's generations. Nothing once it has one."""
        if (place := self._state.places.get(model)) is not None and place.generation == 0:
            place.generation = generation

    def adopt(self, model: str, generation: int) -> None:
        self._post(Adopted(model, generation))

    def close(self) -> None:
        """Refuses what waits and what comes; running leases go on."""
        self._post(Closed())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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

    def expected_wait_s(self, model: str) -> float:
        place = self._state.places.get(model)
        return 0.0 if place is None else expected_wait_s(self._state, place)

    # What the supervisor reports (supervisor.unit.Listener).

    def unit_ready(self, model: str, generation: int) -> None:
        self._post(BecameReady(model, generation))

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        self._post(Ended(model, generation, error, retry_at))

    # The loop itself.

    async def _ask(self, model: str, deadline: float, *, lease: bool, force: bool = False) -> Grant:
        waiter = next(self._ids)
        commands = step(self._state, Asked(waiter, model, deadline, lease, force), clock.monotonic())
        if len(commands) == 1 and type(granted := commands[0]) is Grant and granted.waiter == waiter:
            return granted  # the usual case: nobody has to wait
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = future
        try:
            self._obey(commands)
            if not future.done():
                self._foresee(model)
            return await future
        except asyncio.CancelledError:
            # Granted and cancelled in one moment: the grant must be given back.
            if lease and future.done() and not future.cancelled() and future.exception() is None:
                self._post(Returned(waiter, model))
            else:
                self._post(Left(waiter))
            raise
        finally:
            self._waiting.pop(waiter, None)
            place = self._state.places.get(model)
            if place is None or (place.phase is Phase.ABSENT and not place.waiting):
                self._units.forgo(model)

    def _foresee(self, model: str) -> None:
        place = self._state.places.get(model)
        if place is not None and place.phase is Phase.ABSENT:
            self._units.expect(model, place.generation + 1)

    def _post(self, event: Event) -> None:
        self._obey(step(self._state, event, clock.monotonic()))

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            kind = type(command)
            if kind is Grant:
                if (future := self._waiting.get(command.waiter)) is not None and not future.done():  # type: ignore[union-attr]
                    future.set_result(command)  # type: ignore[arg-type]
            elif kind is WakeAt:
                self._wake_at(command.at)  # type: ignore[union-attr]
            else:
                self._carry_out(command)  # type: ignore[arg-type]

    def _carry_out(self, command: Start | Stop | Drain | Reject) -> None:
        match command:
            case Reject(waiter, error):
                if (future := self._waiting.get(waiter)) is not None and not future.done():
                    future.set_exception(error)
                self._events.post("request.refused", error.message, model=error.details.get("model"), code=error.code)
            case Start(model, generation):
                self._events.post("scheduler.start", f"start {model}", model=model, generation=generation)
                self._spawn(model, generation, self._units.start(model, generation))
            case Stop(model, generation, why):
                self._events.post("scheduler.stop", f"stop {model}: {why}", model=model, generation=generation, why=why)
                self._spawn(model, generation, self._units.stop(model, generation, why))
            case Drain(model, generation, why):
                self._units.drain(model, generation, why)

    def _spawn(self, model: str, generation: int, work: Coroutine[Any, Any, None]) -> None:
        self._group.create_task(self._carried_out(model, generation, work), name=f"unit {model}.{generation}")

    async def _carried_out(self, model: str, generation: int, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a task's end becomes an event: one bug takes one unit, not all
            bug = error if isinstance(error, CorralError) else Bug(f"{type(error).__name__}: {error}", model=model)
            self._events.post("bug", str(bug), model=model, **bug.details)
            self._post(Ended(model, generation, bug, clock.monotonic() + 1.0))

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
        self._post(Returned(waiter, model))
        if self.on_idle is not None and (place := self._state.places.get(model)) is not None and not place.leases:
            self.on_idle(model, place.generation)

    def _endpoint(self, model: str) -> tuple[str, Endpoint]:
        return self._units.endpoint(model)


class _Held(AbstractAsyncContextManager[Lease]):
    """One lease from asking to giving back."""

    __slots__ = ("_deadline", "_model", "_scheduler", "_waiter")

    def __init__(self, scheduler: Scheduler, model: str, deadline: float) -> None:
        self._scheduler, self._model, self._deadline = scheduler, model, deadline
        self._waiter = 0

    async def __aenter__(self) -> Lease:
        grant = await self._scheduler._ask(self._model, self._deadline, lease=True)
        self._waiter = grant.waiter
        unit, endpoint = self._scheduler._endpoint(self._model)
        queued_ms, load_ms, swap_ms = grant.queued_s * 1000, grant.load_s * 1000, grant.swap_s * 1000
        return Lease(self._model, unit, grant.generation, endpoint, queued_ms, load_ms, swap_ms)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler._returned(self._waiter, self._model)
