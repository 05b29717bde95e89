"""`KeptConversations`: slots saved when their unit is idle, put back when a request goes on from one, and judged.

Nothing here can fail a request or a start: whatever goes wrong, the engine reads the prompt itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from corral import clock
from corral.conversations import talk
from corral.conversations.identity import Identity, identify, save_dir
from corral.conversations.shelf import Record, Shelf, Verdict
from corral.engines.plan import Endpoint, LaunchPlan
from corral.events import EventLog
from corral.lazy_dataclass import dataclass
from corral.scheduler.lease import Lease
from corral.units import show_bytes

QUIET_S = 1.0
"""A unit has to be idle for so long before its slots are saved, as long as nobody knows how long that takes."""
LEAST_TOKENS = 256
"""A shorter conversation is read again sooner than it is looked for."""

_SHORTEST_QUIET_S = 0.2
_LONGEST_QUIET_S = 60.0
_CALM = 20.0
"""Saving may take this part of the time: after a save of half a second the next quiet has to last ten."""
_SAVE_WITHIN_S = 120.0
_MOST_SAVING_S = 3.0
"""An engine answers nobody while it saves: what is expected to take longer is not saved."""
SPARE_BYTES = 512 << 20
"""Of the disk, left to others."""
_OWN_WAY = (b'"cache_prompt"', b'"id_slot"')
"""What a request has in it that says itself which slot it wants, or that nothing is to be used again."""
_STRIKES = 2
_OVERHEAD_S = 0.002
_PATHS = (b"/v1/chat/completions", b"/v1/completions")
_TELLING_BYTES = 16 << 20
_FIRST_RATE = 500e6  # bytes per second, until one was measured


class Spawn(Protocol):
    """Starts a task that belongs to the daemon."""

    def __call__(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


@dataclass(slots=True, eq=False)
class _Unit:
    """One generation of one engine, as far as its slots matter."""

    place: str  # the unit without its generation
    generation: int
    plan: LaunchPlan
    tries: int  # requests that may still be looked at
    identity: Identity | None = None
    pending: set[str] = field(default_factory=set)  # records that may be put back
    saved: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)  # slot → its task and tokens then
    restored: set[int] = field(default_factory=set)  # slots that nothing was asked of since
    quiet_s: float = QUIET_S
    idle_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    off: bool = False  # nothing of it is kept
    saving: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return f"{self.place}.{self.generation}"

    @property
    def model(self) -> str:
        return self.plan.model

    @property
    def endpoint(self) -> Endpoint:
        return self.plan.endpoint

    @property
    def allowance(self) -> int:
        """How many requests in a row may be looked at in vain."""
        return 2 * self.plan.slots + 4


class KeptConversations:
    """The kept conversations of one daemon, on its event loop."""

    def __init__(
        self,
        shelf: Shelf,
        events: EventLog,
        spawn: Spawn,
        *,
        plan_of: Callable[[str], LaunchPlan | None],
        busy: Callable[[str], bool],
        most: Callable[[], int | None],
        spare_bytes: int = SPARE_BYTES,
        quiet_s: float = QUIET_S,
    ) -> None:
        """`plan_of` gives the plan a unit (`lease.unit` without its generation) runs by; `busy` says whether it has
        anything to do; `most` are the bytes that may be kept, None for not at all; `spare_bytes` of the disk stay
        free; slots are saved after `quiet_s` without work."""
        self._shelf, self._events, self._spawn = shelf, events, spawn
        self._plan_of, self._busy, self._most = plan_of, busy, most
        self._units: dict[str, _Unit] = {}
        self._opened = self._full = False
        self._spare_bytes, self._quiet_s = spare_bytes, quiet_s
        self._rate = self._save_rate = _FIRST_RATE  # bytes per second

    async def open(self) -> None:
        """Nothing is kept when the directory cannot be used; an event says so."""
        try:
            await asyncio.to_thread(self._shelf.open)
            self._opened = True
            await self.settle()
        except OSError as error:
            self._events.post("conversation.off", f"conversations are not kept: {error.filename}: {error.strerror}")

    def folder(self, model: str) -> Path | None:
        """Where the engine of `model` is to save slots, and no other; None where it is not."""
        if not self._opened or self._most() is None:
            return None
        try:
            return self._shelf.home(model)
        except OSError:
            return None

    def close(self) -> None:
        """Nothing more is saved."""
        self._opened = False
        for unit in self._units.values():
            if unit.timer is not None:
                unit.timer.cancel()
                unit.timer = None

    def notes(self, place: str) -> list[str]:
        """What there is to say about a running unit's conversations."""
        unit = self._units.get(place)
        if unit is None or unit.identity is None or (off := self._shelf.verdict(unit.identity.build).off) is None:
            return []
        return [f"conversations are not kept: {off}"]

    async def settle(self) -> None:
        """Removes what is not to be kept any more: all that is too much, all with models that are gone, or all."""
        most = self._most()
        if not self._opened or len(self._shelf) == 0:
            return
        if most is None:
            await self.clear()
        else:
            await asyncio.to_thread(self._shelf.trim, most)
            await asyncio.to_thread(self._shelf.sweep)

    async def clear(self, dry_run: bool = False) -> tuple[int, int]:
        """Removes them all, and what was learnt; how many and how large."""
        return (len(self._shelf), self._shelf.bytes) if dry_run else await asyncio.to_thread(self._shelf.clear)

    # For the gateway.

    def wanted(self, lease: Lease) -> bool:
        """Whether a request of this lease is worth a look."""
        place = _place_of(lease.unit)
        unit = self._units.get(place)
        if unit is None or unit.generation != lease.generation:
            unit = self._begin(place, lease.generation)
        return unit is not None and unit.tries > 0

    async def recall(self, lease: Lease, target: bytes, body: bytes) -> Recall | None:
        """Puts back the conversation that this request goes on from, where there is one and it is worth it."""
        unit = self._units.get(_place(lease))
        if unit is None or unit.saving or len(body) < LEAST_TOKENS or target.partition(b"?")[0] not in _PATHS:
            return None
        if any(each in body for each in _OWN_WAY):
            return None
        try:
            async with unit.lock:
                return await self._recall(unit, target, body)
        except talk.TROUBLE as error:
            unit.tries = 0
            self._trouble(unit, "put back", error)
            return None

    async def _recall(self, unit: _Unit, target: bytes, body: bytes) -> Recall | None:
        of = await self._identity(unit)
        if not unit.pending or self._shelf.verdict(of.build).off is not None:
            unit.tries = 0
            return None
        unit.tries -= 1
        began = clock.monotonic()
        request = await talk.tokens(unit.endpoint, target, body)
        if request is None:
            return None
        found = await asyncio.to_thread(self._shelf.best, of.key, request, unit.pending)
        if found is None or found[1] < LEAST_TOKENS:
            return None
        record, count = found
        unit.pending.discard(record.id)
        unit.tries = unit.allowance if unit.pending else 0
        gain_s, cost_s = count * record.s_per_token, record.bytes / self._rate + _OVERHEAD_S
        if cost_s >= gain_s:
            return None
        slot = await self._free_slot(unit)
        if slot is None:
            return None
        if not await asyncio.to_thread(self._shelf.whole, record):
            self._events.post(
                "conversation.dropped",
                f"{unit.name}: a kept conversation was damaged and is gone; the engine reads it again",
                model=unit.model,
                unit=unit.name,
            )
            return None
        before = clock.monotonic()
        try:
            await talk.restore(unit.endpoint, slot, self._shelf.file(record).name, max(1.0, gain_s))
        except talk.Refused:
            await asyncio.to_thread(self._shelf.drop, record)
            raise
        except BaseException:
            unit.restored.add(slot)  # perhaps
            raise
        now = clock.monotonic()
        self._rate = _towards(self._rate, record.bytes, now - before)
        unit.saved.pop(slot, None)
        unit.restored.add(slot)
        await asyncio.to_thread(self._shelf.used, record)
        return Recall(self, unit.name, unit.model, record, count, now - began)

    async def _free_slot(self, unit: _Unit) -> int | None:
        """A slot that is empty, else one whose contents are kept. None when there is none."""
        idle = [slot for slot in await talk.slots(unit.endpoint) if not slot.busy]
        unit.restored -= {slot.id for slot in idle if slot.task is not None}
        empty = [slot.id for slot in idle if slot.task is None and slot.id not in unit.restored]
        if empty:
            return empty[-1]
        kept = [slot for slot in idle if slot.task is not None and unit.saved.get(slot.id) == (slot.task, slot.tokens)]
        return min(kept, key=lambda slot: slot.task or 0).id if kept else None

    # For the scheduler.

    def idle(self, place: str, generation: int) -> None:
        """The unit has nothing to do. Called often: at the end of each request without another."""
        unit = self._units.get(place)
        if unit is None or unit.generation != generation:
            unit = self._begin(place, generation)
        if unit is None or unit.off:
            return
        unit.idle_at = clock.monotonic()
        if unit.timer is None and self._opened:
            self._look_in(unit, unit.quiet_s)

    def _look_in(self, unit: _Unit, after_s: float) -> None:
        unit.timer = asyncio.get_running_loop().call_later(after_s, self._look, unit)

    def _look(self, unit: _Unit) -> None:
        unit.timer = None
        if not self._opened or self._units.get(unit.place) is not unit or self._busy(unit.place):
            return  # the next end of a request has it looked at again
        left = unit.idle_at + unit.quiet_s - clock.monotonic()
        if left > 0.005:
            self._look_in(unit, left)
        elif self._is_current(unit):
            self._spawn(self._save(unit), name=f"keep {unit.name}")

    async def _save(self, unit: _Unit) -> None:
        most = self._most()
        if most is None or self._full:
            return
        unit.saving = True
        try:
            async with unit.lock:
                of = await self._identity(unit)
                if self._shelf.verdict(of.build).off is None:
                    await self._save_slots(unit, of, most)
        except talk.TROUBLE as error:
            if isinstance(error, talk.Refused) and error.details.get("status") == 501:  # as for models with images
                await self._give_up(unit, error.message)
            elif self._is_current(unit):
                unit.off = True
                self._trouble(unit, "saved", error)
        finally:
            unit.saving = False

    async def _save_slots(self, unit: _Unit, of: Identity, most: int) -> None:
        pace = await talk.pace(unit.endpoint)
        if pace.predicted == 0:  # it embeds or ranks: nothing goes on from what it has read
            return
        for slot in await talk.slots(unit.endpoint):
            mark = (slot.task, slot.tokens)
            short = slot.tokens is not None and slot.tokens < LEAST_TOKENS
            if slot.busy or slot.task is None or short or unit.saved.get(slot.id) == mark:
                continue
            if self._busy(unit.place):
                return
            wanted = int((slot.tokens or 0) * self._shelf.bytes_per_token(of.key))
            if wanted > most or wanted / self._save_rate > _MOST_SAVING_S:
                unit.saved[slot.id] = mark
                continue
            if await asyncio.to_thread(self._shelf.room) < wanted + self._spare_bytes:
                self._full = True
                text = f"conversations are not kept any more: less than {show_bytes(self._spare_bytes)} of the disk"
                self._events.post("conversation.off", f"{text} would stay free", model=unit.model)
                return
            await self._save_slot(unit, of, slot.id, pace.s_per_token, most)
            unit.saved[slot.id] = mark

    async def _save_slot(self, unit: _Unit, of: Identity, slot: int, s_per_token: float, most: int) -> None:
        part, began = self._shelf.part(unit.model), clock.monotonic()
        try:
            count = await talk.save(unit.endpoint, slot, part.name, _SAVE_WITHIN_S)
            took_s = clock.monotonic() - began
            unit.quiet_s = min(max(_SHORTEST_QUIET_S, _CALM * took_s), _LONGEST_QUIET_S)
            wrote = await asyncio.to_thread(self._shelf.size, part)
            self._save_rate = _towards(self._save_rate, wrote, took_s)
            if count < LEAST_TOKENS:
                return
            record = await asyncio.to_thread(self._shelf.take, part, unit.model, of, count, s_per_token, most)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        if record is not None:
            text = f"{unit.name}: kept a conversation of {count} tokens, {show_bytes(record.bytes)}"
            data = {"tokens": count, "bytes": record.bytes, "ms": round(took_s * 1000, 1)}
            self._events.post("conversation.kept", text, model=unit.model, unit=unit.name, **data)

    # What is learnt.

    def judged(self, recall: Recall, cached: int) -> None:
        """An answer has said how much of a recalled conversation it did not have to read."""
        helped = 2 * cached >= recall.count
        text = f"{recall.unit}: put a conversation back in {recall.took_s * 1000:.0f} ms: "
        text += f"{cached} tokens need not be read again" if helped else "in vain, it is read again"
        data = {"tokens": recall.count, "cached": cached, "ms": round(recall.took_s * 1000, 1)}
        self._events.post("conversation.restored", text, model=recall.model, unit=recall.unit, **data)
        verdict = self._shelf.verdict(recall.record.build)
        if not helped or verdict.strikes:
            self._spawn(self._learn(recall, verdict, helped), name=f"learn {recall.unit}")

    async def _learn(self, recall: Recall, verdict: Verdict, helped: bool) -> None:
        strikes = 0 if helped else verdict.strikes + 1
        off = "those put back were read again, with this model and engine" if strikes >= _STRIKES else None
        await self._judge(recall.unit, recall.model, recall.record.build, Verdict(strikes, off))

    async def _give_up(self, unit: _Unit, why: str) -> None:
        assert unit.identity is not None
        await self._judge(unit.name, unit.model, unit.identity.build, Verdict(_STRIKES, why))

    async def _judge(self, unit: str, model: str, build: str, verdict: Verdict) -> None:
        with suppress(OSError):  # then it is learnt again
            await asyncio.to_thread(self._shelf.judge, build, verdict)
        if verdict.off is not None:
            await asyncio.to_thread(self._shelf.forget, build)
            text = f"{unit}: conversations are not kept: {verdict.off}"
            self._events.post("conversation.off", text, model=model, unit=unit)

    def drop(self, recall: Recall) -> None:
        """The engine died over it, perhaps because of it."""
        self._spawn(asyncio.to_thread(self._shelf.drop, recall.record), name=f"drop {recall.record.id}")

    # Inside.

    def _begin(self, place: str, generation: int) -> _Unit | None:
        """What is known of a new generation; None where nothing is kept."""
        if not self._opened or self._most() is None:
            return None
        plan = self._plan_of(place)
        if plan is None or plan.generation != generation:
            return None
        old = self._units.get(place)
        if old is not None and old.timer is not None:
            old.timer.cancel()
        quiet_s = self._quiet_s if old is None else old.quiet_s
        unit = self._units[place] = _Unit(place, generation, plan, 0, quiet_s=quiet_s)
        unit.off = save_dir(plan) != self._shelf.place(plan.model)
        unit.tries = unit.allowance if len(self._shelf) and not unit.off else 0
        return unit

    def _is_current(self, unit: _Unit) -> bool:
        plan = self._plan_of(unit.place)
        return plan is not None and plan.generation == unit.generation

    async def _identity(self, unit: _Unit) -> Identity:
        if unit.identity is None:
            of = unit.identity = await asyncio.to_thread(identify, unit.plan)
            unit.pending = {record.id for record in self._shelf.of(of.key, unit.model)}
        return unit.identity

    def _trouble(self, unit: _Unit, what: str, error: Exception) -> None:
        text = f"{unit.name}: a conversation could not be {what}: {error or type(error).__name__}"
        self._events.post("conversation.failed", text, model=unit.model, unit=unit.name)


def _towards(rate: float, size: int, took_s: float) -> float:
    """Bytes per second, with one more measurement; a small file says nothing about that."""
    return rate + (size / took_s - rate) / 4 if size >= _TELLING_BYTES and took_s > 0 else rate


def _place(lease: Lease) -> str:
    return _place_of(lease.unit)


@lru_cache(maxsize=64)
def _place_of(unit: str) -> str:
    return unit.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Recall:
    """A conversation that was put back for one request, until its answer is there."""

    keeper: KeptConversations
    unit: str
    model: str
    record: Record
    count: int  # tokens that the request and the conversation have in common
    took_s: float

    def answered(self, tail: bytes) -> None:
        """The end of the answer, as it came."""
        if (cached := talk.cached(tail)) is not None:
            self.keeper.judged(self, cached)

    def died(self) -> None:
        self.keeper.drop(self)
